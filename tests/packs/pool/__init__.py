"""Nodes that tell which process they run in, wait for each other, keep something, and end their process."""

from .nodes import NODE_CLASS_MAPPINGS

__all__ = ["NODE_CLASS_MAPPINGS"]
