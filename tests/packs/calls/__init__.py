"""Nodes that call back, hold objects, stream and tell how they go: what the conformance suite runs over every route."""

from .nodes import NODE_CLASS_MAPPINGS

__all__ = ["NODE_CLASS_MAPPINGS"]
