"""Names of objects in other processes."""

from comfy_airlock.compat.remote_handle import RemoteObjectHandle as RemoteObjectHandle
