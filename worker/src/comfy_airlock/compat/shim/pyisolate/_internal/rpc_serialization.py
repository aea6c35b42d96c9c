"""Functions of other processes."""

from comfy_airlock.compat.callables import CallableProxy as CallableProxy
