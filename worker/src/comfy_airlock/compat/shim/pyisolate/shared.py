"""The base of extensions."""

from comfy_airlock.compat.extension_base import ExtensionBase as ExtensionBase
from comfy_airlock.compat.extension_base import ExtensionLocal as ExtensionLocal
from comfy_airlock.compat.rpc import AsyncRPC as AsyncRPC
from comfy_airlock.compat.singletons import ProxiedSingleton as ProxiedSingleton
