"""Serializers that a host's adapter registers, by the names of types: how their values cross as plain ones, and back.

One registry a process, as its adapter is. Not Airlock's own registry: that goes by types, and this by what they are
called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Final, NamedTuple

Serialize = Callable[[Any], Any]
Deserialize = Callable[[Any], Any]


class _Handlers(NamedTuple):
    """What is registered under one name."""

    serialize: Serialize | None = None
    deserialize: Deserialize | None = None
    is_data: bool = False


_NONE: Final = _Handlers()


class SerializerRegistry:
    """Serializers and deserializers by type name."""

    _instance: ClassVar[SerializerRegistry | None] = None

    def __init__(self) -> None:
        self._by_name: dict[str, _Handlers] = {}
        self._has_deserializers = False
        # What was found for a type, until something is registered.
        self._by_type: dict[type, Serialize | None] = {}

    @classmethod
    def get_instance(cls) -> SerializerRegistry:
        """The registry of this process."""
        if cls._instance is None:
            cls._instance = cls()
        return cls._instance

    def register(
        self,
        type_name: str,
        serializer: Serialize | None,
        deserializer: Deserialize | None = None,
        *,
        data_type: bool = False,
    ) -> None:
        """Has values of types of this name cross as what ``serializer`` makes of them; the last registration counts.

        Args:
            serializer: None for a name that is only ever found as the ``__type__`` of a dictionary.
            deserializer: makes a value of a dictionary whose ``__type__`` this name is.
            data_type: whether such a value is data, which a worker hands out whole rather than a handle to it.
        """
        before = self._handlers(type_name)
        self._by_name[type_name] = _Handlers(
            serializer, deserializer or before.deserialize, data_type or before.is_data
        )
        self._has_deserializers = self._has_deserializers or deserializer is not None
        self._by_type.clear()

    def _handlers(self, type_name: str) -> _Handlers:
        return self._by_name.get(type_name, _NONE)

    def get_serializer(self, type_name: str) -> Serialize | None:
        return self._handlers(type_name).serialize

    def get_deserializer(self, type_name: str) -> Deserialize | None:
        return self._handlers(type_name).deserialize

    def has_handler(self, type_name: str) -> bool:
        """Whether anything is registered under the name."""
        return type_name in self._by_name

    def is_data_type(self, type_name: str) -> bool:
        return self._handlers(type_name).is_data

    def clear(self) -> None:
        """Forgets all."""
        self._by_name.clear()
        self._by_type.clear()
        self._has_deserializers = False

    def for_type(self, cls: type) -> Serialize | None:
        """The serializer for values of a class: its own, or that of the nearest base that has one, by their names."""
        try:
            return self._by_type[cls]
        except KeyError:
            pass
        names = (name for base in cls.__mro__[:-1] for name in (base.__name__, f"{base.__module__}.{base.__name__}"))
        found = next((each for name in names if (each := self.get_serializer(name)) is not None), None)
        self._by_type[cls] = found
        return found

    @property
    def can_deserialize(self) -> bool:
        return self._has_deserializers
