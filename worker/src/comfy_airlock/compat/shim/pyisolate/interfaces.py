"""What an adapter has."""

from comfy_airlock.compat.adapters import IsolationAdapter as IsolationAdapter
from comfy_airlock.compat.adapters import SerializerRegistryProtocol as SerializerRegistryProtocol
