"""The manager."""

from comfy_airlock.compat.config import ExtensionConfig as ExtensionConfig
from comfy_airlock.compat.config import ExtensionManagerConfig as ExtensionManagerConfig
from comfy_airlock.compat.extension import Extension as Extension
from comfy_airlock.compat.extension_base import ExtensionBase as ExtensionBase
from comfy_airlock.compat.manager import ExtensionManager as ExtensionManager
