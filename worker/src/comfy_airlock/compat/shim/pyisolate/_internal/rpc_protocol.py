"""Calls between host and worker."""

from comfy_airlock.compat.rpc import AsyncRPC as AsyncRPC
from comfy_airlock.compat.singletons import LocalMethodRegistry as LocalMethodRegistry
from comfy_airlock.compat.singletons import ProxiedSingleton as ProxiedSingleton
from comfy_airlock.compat.singletons import SingletonMetaclass as SingletonMetaclass
from comfy_airlock.compat.singletons import local_execution as local_execution
from comfy_airlock.compat.this_child import get_child_rpc_instance as get_child_rpc_instance
from comfy_airlock.compat.this_child import set_child_rpc_instance as set_child_rpc_instance
