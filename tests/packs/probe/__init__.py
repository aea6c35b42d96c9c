"""Nodes for tests: they echo, wait, fail, and end their process in all the ways that a pack can."""

from .nodes import NODE_CLASS_MAPPINGS

__all__ = ["NODE_CLASS_MAPPINGS"]
