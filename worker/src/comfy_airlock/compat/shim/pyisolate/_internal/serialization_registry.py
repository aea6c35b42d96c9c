"""Serializers by the names of types."""

from comfy_airlock.compat.serializers import SerializerRegistry as SerializerRegistry
