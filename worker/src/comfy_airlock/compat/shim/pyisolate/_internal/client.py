"""Imported by hosts' programs in their workers, for what the import did. Here a worker is set up before it runs any of
theirs.
"""

from comfy_airlock.compat.rpc import AsyncRPC as AsyncRPC
