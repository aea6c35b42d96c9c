"""The adapter of this process."""

from comfy_airlock.compat.adapters import AdapterRegistry as AdapterRegistry
