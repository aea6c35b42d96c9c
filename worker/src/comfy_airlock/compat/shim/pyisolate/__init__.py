"""pyisolate's names, over Airlock. Nothing is defined here; see :mod:`comfy_airlock.compat`."""

from comfy_airlock.compat.adapters import get_adapter as get_adapter
from comfy_airlock.compat.adapters import register_adapter as register_adapter
from comfy_airlock.compat.config import ExtensionConfig as ExtensionConfig
from comfy_airlock.compat.config import ExtensionManagerConfig as ExtensionManagerConfig
from comfy_airlock.compat.config import SandboxMode as SandboxMode
from comfy_airlock.compat.extension_base import ExtensionBase as ExtensionBase
from comfy_airlock.compat.manager import ExtensionManager as ExtensionManager
from comfy_airlock.compat.sealed import SealedNodeExtension as SealedNodeExtension
from comfy_airlock.compat.singletons import ProxiedSingleton as ProxiedSingleton
from comfy_airlock.compat.singletons import local_execution as local_execution
from comfy_airlock.compat.singletons import singleton_scope as singleton_scope
from comfy_airlock.compat.tensors import flush_tensor_keeper as flush_tensor_keeper
from comfy_airlock.compat.tensors import purge_orphan_sender_shm_files as purge_orphan_sender_shm_files

__version__ = "0.10.2"

__all__ = [
    "ExtensionBase",
    "ExtensionConfig",
    "ExtensionManager",
    "ExtensionManagerConfig",
    "ProxiedSingleton",
    "SandboxMode",
    "SealedNodeExtension",
    "flush_tensor_keeper",
    "get_adapter",
    "local_execution",
    "purge_orphan_sender_shm_files",
    "register_adapter",
    "singleton_scope",
]
