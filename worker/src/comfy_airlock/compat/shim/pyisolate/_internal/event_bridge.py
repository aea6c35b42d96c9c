"""Events of extensions."""

from comfy_airlock.compat.events import EventBridge as _EventBridge

__all__ = ["_EventBridge"]
