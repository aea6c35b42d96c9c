"""Conversions of values."""

from comfy_airlock.compat.values import deserialize_from_isolation as deserialize_from_isolation
from comfy_airlock.compat.values import deserialize_proxy_result as deserialize_proxy_result
from comfy_airlock.compat.values import serialize_for_isolation as serialize_for_isolation
