"""Types of the standard library that keep their type on the wire, and the kinds of class that users define.

Each is taken apart into a state that another language can read; PROTOCOL.md, "Values", has the table. Modules are
imported only once a value of theirs arrives. Rebuilding an enum member or a dataclass imports nothing and runs none of
the class's code: the class must be loaded here already, else the value stays :class:`Opaque`.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from comfy_airlock.wire import states
from comfy_airlock.wire.errors import ValueInvalid
from comfy_airlock.wire.optional import loaded, standard
from comfy_airlock.wire.registry import Opaque, Rebuild, Serializer


def _iso(value: Any) -> str:
    text: str = value.isoformat()
    return text


_TAKE_APART: Final[dict[str, tuple[str, Any]]] = {
    "datetime.datetime": ("datetime", _iso),
    "datetime.date": ("date", _iso),
    "datetime.time": ("time", _iso),
    "datetime.timedelta": ("timedelta", lambda value: [value.days, value.seconds, value.microseconds]),
    "pathlib.PosixPath": ("path", str),
    "pathlib._local.PosixPath": ("path", str),
    "pathlib.PurePosixPath": ("purepath", str),
    "pathlib._local.PurePosixPath": ("purepath", str),
    "uuid.UUID": ("uuid", str),
    "decimal.Decimal": ("decimal", str),
    "fractions.Fraction": ("fraction", lambda value: [int(value.numerator), int(value.denominator)]),
    "collections.OrderedDict": ("ordereddict", lambda value: [[key, item] for key, item in value.items()]),
    "builtins.range": ("range", lambda value: [value.start, value.stop, value.step]),
    "builtins.slice": ("slice", lambda value: [value.start, value.stop, value.step]),
    "builtins.ellipsis": ("ellipsis", lambda _: None),
}

_BUILTIN_CONTENT: Final = (dict, list, tuple, set, frozenset, str, bytes, bytearray, int, float, complex)


def serializer_for(cls: type) -> Serializer | None:
    """How a standard type, an enum, a dataclass or a named tuple crosses."""
    known = _TAKE_APART.get(f"{cls.__module__}.{cls.__qualname__}")
    if known is not None:
        return Serializer(known[0], known[1], _REBUILD[known[0]])
    enum = loaded("enum")
    if enum is not None and issubclass(cls, enum.Enum):
        return Serializer("enum", _take_apart_enum, _REBUILD["enum"])
    # One that is an exception too crosses as an exception; one that is also a dict or a list is more than its fields.
    if hasattr(cls, "__dataclass_fields__") and not issubclass(cls, (BaseException, *_BUILTIN_CONTENT)):
        return Serializer("dataclass", _take_apart_dataclass, _REBUILD["dataclass"])
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return Serializer("namedtuple", _take_apart_namedtuple, _REBUILD["namedtuple"])
    return None


def rebuild_for(name: str) -> Rebuild | None:
    """How a standard type's state becomes a value again."""
    return _REBUILD.get(name)


def find_class(module: object, qualified_name: object) -> type | None:
    """A class that this process has loaded. Never imports: a peer must not choose what runs here."""
    if not isinstance(module, str) or not isinstance(qualified_name, str):
        raise ValueInvalid("a class has a module and a name")
    found: object = sys.modules.get(module)
    for part in qualified_name.split("."):
        found = getattr(found, "__dict__", {}).get(part)
    return found if isinstance(found, type) else None


def _take_apart_enum(value: Any) -> list[object]:
    cls = type(value)
    # A combination of flags is no member; what its name is depends on Python's version.
    name = value.name if value.name in cls.__members__ else None
    return [cls.__module__, cls.__qualname__, name, value.value]


def _rebuild_enum(state: Any) -> object:
    module, qualified_name, name, value = state
    cls = find_class(module, qualified_name)
    if cls is None or not issubclass(cls, standard("enum").Enum):
        return Opaque("enum", state)
    member = cls.__members__.get(name)
    if member is not None:
        return member
    # A combination of flags has a value, but no member of that name.
    if issubclass(cls, standard("enum").Flag) and states.is_int(value):
        return _combination(cls, value)
    raise ValueInvalid(f"{qualified_name} has no member {name!r} here; the two sides have different versions of it")


def _combination(cls: Any, value: int) -> object:
    """The combination of flags that has this value, as Python itself makes it: the class may have other ideas."""
    known = cls._value2member_map_.get(value)
    if known is not None:
        return known
    own = next(base for base in cls.__mro__ if base.__module__ == "enum" and "_missing_" in vars(base))
    return vars(own)["_missing_"].__func__(cls, value)


def _take_apart_dataclass(value: Any) -> list[object]:
    cls = type(value)
    # A class made by dataclasses means that the module is loaded.
    fields = standard("dataclasses").fields(value)
    state = {field.name: getattr(value, field.name) for field in fields if hasattr(value, field.name)}
    return [cls.__module__, cls.__qualname__, state]


def _rebuild_dataclass(state: Any) -> object:
    module, qualified_name, fields = state
    cls = find_class(module, qualified_name)
    if cls is None or not hasattr(cls, "__dataclass_fields__"):
        return Opaque("dataclass", state)
    unknown = set(fields) - set(cls.__dataclass_fields__)
    if unknown:
        raise ValueInvalid(f"{qualified_name} has no field {', '.join(sorted(unknown))} here")
    value = object.__new__(cls)
    for name, item in fields.items():
        # Also where the dataclass is frozen: __init__ and __setattr__ are code, fields are data.
        object.__setattr__(value, name, item)
    return value


def _take_apart_namedtuple(value: Any) -> list[object]:
    cls = type(value)
    return [cls.__module__, cls.__qualname__, list(value)]


def _rebuild_namedtuple(state: Any) -> object:
    module, qualified_name, items = state
    cls = find_class(module, qualified_name)
    if cls is None or not issubclass(cls, tuple) or len(getattr(cls, "_fields", ())) != len(items):
        return Opaque("namedtuple", state)
    return tuple.__new__(cls, items)


def _rebuild_datetime(state: str) -> Any:
    # Python 3.10 reads neither the Z of other languages nor fractions of other than 3 or 6 digits.
    return standard("datetime").datetime.fromisoformat(state.replace("Z", "+00:00"))


_TWO_INTS: Final = states.is_record(states.is_int, states.is_int)
_THREE_INTS: Final = states.is_record(states.is_int, states.is_int, states.is_int)
_THREE: Final = states.is_record(states.is_anything, states.is_anything, states.is_anything)
_PAIRS: Final = states.is_list_of(states.is_record(states.is_anything, states.is_anything))
_MEMBER: Final = states.is_record(states.is_text, states.is_text, states.is_anything, states.is_anything)
_FIELDS: Final = states.is_record(states.is_text, states.is_text, states.is_dict)
_ITEMS: Final = states.is_record(states.is_text, states.is_text, states.is_list)

_BUILD: Final[dict[str, tuple[states.Fits, Rebuild]]] = {
    "datetime": (states.is_text, _rebuild_datetime),
    "date": (states.is_text, lambda state: standard("datetime").date.fromisoformat(state)),
    "time": (states.is_text, lambda state: standard("datetime").time.fromisoformat(state)),
    "timedelta": (_THREE_INTS, lambda state: standard("datetime").timedelta(*state)),
    "path": (states.is_text, lambda state: standard("pathlib").Path(state)),
    "purepath": (states.is_text, lambda state: standard("pathlib").PurePosixPath(state)),
    "uuid": (states.is_text, lambda state: standard("uuid").UUID(state)),
    "decimal": (states.is_text, lambda state: standard("decimal").Decimal(state)),
    # Of text, a few bytes ("1e999999999") would be a number of gigabytes.
    "fraction": (_TWO_INTS, lambda state: standard("fractions").Fraction(*state)),
    "ordereddict": (_PAIRS, lambda state: standard("collections").OrderedDict(state)),
    "range": (_THREE_INTS, lambda state: range(*state)),
    "slice": (_THREE, lambda state: slice(*state)),
    "ellipsis": (states.is_none, lambda _: ...),
    "enum": (_MEMBER, _rebuild_enum),
    "dataclass": (_FIELDS, _rebuild_dataclass),
    "namedtuple": (_ITEMS, _rebuild_namedtuple),
}

_REBUILD: Final = {name: states.checked(name, fits, build) for name, (fits, build) in _BUILD.items()}
