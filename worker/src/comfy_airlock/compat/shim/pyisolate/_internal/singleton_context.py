"""Instances of services, for a while."""

from comfy_airlock.compat.singletons import singleton_scope as singleton_scope
