"""Types beyond msgpack's own: each has a stable name on the wire, and two functions that take it apart and rebuild it.

Nothing is guessed: a type that is neither built in here nor registered does not cross. A name that the receiver doesn't
know arrives as an :class:`Opaque`, which refuses to be used but can be passed on unchanged.
"""

from __future__ import annotations

import io
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from comfy_airlock.wire.errors import BadRequest, ValueInvalid
from comfy_airlock.wire.optional import standard

T = TypeVar("T")


class TakeApart(Protocol):
    """Turns a value into a state made of values that cross."""

    def __call__(self, value: Any, /) -> Any: ...


class Rebuild(Protocol):
    """Turns a state back into a value."""

    def __call__(self, state: Any, /) -> Any: ...


class Serializer(NamedTuple):
    """How one type crosses."""

    name: str
    take_apart: TakeApart
    rebuild: Rebuild


class Opaque:
    """A value of a type that this process doesn't know: it can be passed on, and arrives as what it was.

    Attributes:
        name: the type's name on the wire.
        state: the value, taken apart.
    """

    __slots__ = ("name", "state")

    def __init__(self, name: str, state: Any) -> None:
        self.name = name
        self.state = state

    def __repr__(self) -> str:
        return f"<Opaque {self.name}: this process has no such type; pass it on, or import or register the type>"


class Registry:
    """Serializers by type and by name."""

    def __init__(self) -> None:
        self._by_type: dict[type, Serializer] = {}
        self._by_name: dict[str, Rebuild] = {}
        self._types: dict[str, type] = {}

    def add(self, cls: type[T], name: str, take_apart: TakeApart, rebuild: Rebuild) -> None:
        """Lets values of exactly ``cls`` cross under ``name``.

        Raises:
            BadRequest: the name or the type is taken by another registration.
        """
        known = self._by_type.get(cls)
        if known is not None and known.name != name:
            raise BadRequest(f"{cls.__qualname__} is registered already, as {known.name!r}")
        owner = self._types.get(name, cls)
        # A pack that is imported again, after its first import failed, makes its types anew.
        if (owner.__module__, owner.__qualname__) != (cls.__module__, cls.__qualname__):
            raise BadRequest(f"the name {name!r} is registered for another type already")
        self._by_type[cls] = Serializer(name, take_apart, rebuild)
        self._by_name[name] = rebuild
        self._types[name] = cls

    def for_type(self, cls: type) -> Serializer | None:
        return self._by_type.get(cls)

    def for_name(self, name: str) -> Rebuild | None:
        return self._by_name.get(name)


process_registry: Final = Registry()
"""The registry of this process. One per process, as its types are."""


def register(cls: type[T], name: str, take_apart: TakeApart, rebuild: Rebuild) -> None:
    """Lets values of exactly ``cls`` cross to other processes, under a stable name.

    Both sides register it: the host in its own code, a pack in its ``__init__.py``.

    Args:
        cls: the type; subclasses need a registration of their own.
        name: its name on the wire, with a dot in it (``"my_pack.Mesh"``); names without one are Airlock's.
        take_apart: value to a state made of values that cross.
        rebuild: state to value; it sees whatever the other process sent.

    Raises:
        BadRequest: the name has no dot, or the name or type is taken.
    """
    if "." not in name:
        raise BadRequest(f"the name {name!r} has no dot in it; names without one are Airlock's own")
    process_registry.add(cls, name, take_apart, rebuild)


def allow_pickle(cls: type) -> None:
    """Lets values of exactly ``cls`` cross by pickle.

    An opt-in for one named type, on both sides. What is unpickled may name no class or function but those that were
    allowed in this way, yet ``cls`` itself rebuilds from whatever state the other process sent.
    """
    name = f"pickle.{cls.__module__}.{cls.__qualname__}"
    process_registry.add(cls, name, _pickled, _unpickle)
    _pickle_allowed.add((cls.__module__, cls.__qualname__))


_pickle_allowed: Final[set[tuple[str, str]]] = set()


def _pickled(value: object) -> bytes:
    data: bytes = standard("pickle").dumps(value, protocol=5)
    return data


def _unpickle(state: object) -> object:
    pickle = standard("pickle")
    if not isinstance(state, bytes):
        raise ValueInvalid("a pickled value has no bytes")

    class AllowedUnpickler(pickle.Unpickler):  # type: ignore[misc, name-defined]
        def find_class(self, module: str, name: str) -> object:
            if (module, name) in _pickle_allowed:
                found: object = super().find_class(module, name)
                return found
            raise ValueInvalid(f"a pickled value names {module}.{name}, which was not allowed")

    return AllowedUnpickler(io.BytesIO(state)).load()
