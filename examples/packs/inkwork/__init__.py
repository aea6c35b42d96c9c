"""Inkwork: ink outlines, bold colours and captions for ComfyUI, by OpenCV and Pillow on numpy 2."""

from .nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
