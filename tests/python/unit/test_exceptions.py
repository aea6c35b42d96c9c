"""Exceptions across processes: own type, arguments, state, notes, and the remote traceback as their cause."""

from __future__ import annotations

import asyncio
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from comfy_airlock.wire.codec import Codec
from comfy_airlock.wire.errors import (
    ERROR_CODES,
    AirlockError,
    ProtocolError,
    RemoteError,
    RemoteTraceback,
    ValueInvalid,
)
from comfy_airlock.wire.exceptions import rebuild
from comfy_airlock.wire.limits import EXCEPTIONS_DEEP_MAX
from comfy_airlock.wire.registry import Registry
from strategies import values

CODEC = Codec()
RAN: list[str] = []


class PackError(ValueError):
    def __init__(self, message: str, *, code: int) -> None:
        RAN.append("init")
        super().__init__(message)
        self.code = code


class Quiet(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Stubborn:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class Picky(OSError):
    def __init__(self, path: str) -> None:
        super().__init__(2, "is missing", path)


@dataclass
class DataError(Exception):
    a: int


class Counted:
    """Counts how often it is encoded."""

    def __init__(self) -> None:
        self.times = 0

    def take_apart(self) -> None:
        self.times += 1


def taken_apart(error: BaseException, codec: Codec = CODEC) -> dict[str, Any]:
    """What crosses of the exception, as an ERROR frame has it."""
    fields: dict[str, Any] = CODEC.decode(codec.encode_error({"code": "remote_exception"}, error))["exception"]
    return fields


def crossed(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as raised:
        return rebuild(taken_apart(raised))


def renamed(error: BaseException, *types: str) -> BaseException:
    """As it arrives where its class is not loaded."""
    return rebuild({**taken_apart(error), "types": list(types)})


def test_own_type_arguments_and_state_arrive_without_its_code() -> None:
    error = PackError("bad seed", code=7)
    RAN.clear()
    back: Any = crossed(error)
    assert type(back) is PackError
    assert (back.args, back.code, str(back)) == (("bad seed",), 7, "bad seed")
    assert RAN == []


def test_remote_traceback_is_the_cause_and_is_shown() -> None:
    back = crossed(ValueError("x"))
    assert type(back.__cause__) is RemoteTraceback
    shown = "".join(traceback.format_exception(type(back), back, None))
    assert "in crossed" in shown
    assert "raise error" in shown


@pytest.mark.skipif(sys.version_info < (3, 11), reason="notes are new in Python 3.11")
def test_notes_arrive_and_are_shown() -> None:
    error = KeyError("k")
    getattr(error, "add_note")("while sampling")  # noqa: B009 - Python 3.10 has no such name.
    back = crossed(error)
    assert "while sampling" in "".join(traceback.format_exception(type(back), back, None))


def os_error() -> OSError:
    try:
        Path("/no/such/file").read_bytes()
    except OSError as error:
        return error
    raise AssertionError


def decode_error() -> UnicodeDecodeError:
    try:
        b"\xff".decode()
    except UnicodeDecodeError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(
    "error",
    [
        KeyError("seed"),
        KeyError(),
        KeyError((1, 2)),
        os_error(),
        OSError(28, "No space left"),
        OSError("plain"),
        OSError(1, "a", "from", None, "to"),
        decode_error(),
        UnicodeEncodeError("ascii", "é", 0, 1, "why"),
        StopIteration(3),
        SyntaxError("bad", ("file.py", 1, 2, "x ==", 1, 4)),
        ZeroDivisionError("division by zero"),
        AssertionError(),
        MemoryError("out of memory"),
        RecursionError("deep"),
        NotImplementedError(),
        TimeoutError("late"),
    ],
    ids=repr,
)
def test_builtin_exception_arrives_as_it_was(error: BaseException) -> None:
    back = crossed(error)
    assert type(back) is type(error)
    assert (back.args, str(back)) == (error.args, str(error))
    for name in ("errno", "strerror", "filename", "filename2", "object", "start", "reason", "value", "lineno"):
        assert getattr(back, name, None) == getattr(error, name, None)


def test_name_of_a_missing_module_arrives() -> None:
    back: Any = crossed(ModuleNotFoundError("No module named 'cv2'", name="cv2"))
    assert (type(back), back.name) == (ModuleNotFoundError, "cv2")


def test_subclass_of_a_builtin_keeps_its_fields() -> None:
    back: Any = crossed(Picky("/data"))
    assert (type(back), back.errno, back.filename, str(back)) == (Picky, 2, "/data", "[Errno 2] is missing: '/data'")


def test_class_that_is_not_loaded_is_caught_by_its_nearest_base() -> None:
    back = renamed(ValueError("bad", 1), "pack.errors:Bad", "pack.errors:Base", "builtins:ValueError")
    with pytest.raises(ValueError, match="bad"):
        raise back
    assert isinstance(back, RemoteError)
    assert (type(back).__module__, type(back).__qualname__, back.args) == ("pack.errors", "Bad", ("bad", 1))


def test_class_that_is_not_loaded_says_what_it_said() -> None:
    error = rebuild({"types": ["pack:E"], "message": "code 7 in stage 2", "args": [7, 2]})
    assert (str(error), error.args) == ("code 7 in stage 2", (7, 2))
    assert "code 7 in stage 2" in "".join(traceback.format_exception(type(error), error, None))


@pytest.mark.parametrize(
    "base", ["KeyError", "FileNotFoundError", "UnicodeDecodeError", "ImportError", "StopIteration"]
)
def test_stand_in_fits_every_builtin_base(base: str) -> None:
    error = rebuild({"types": ["pack:Own", f"builtins:{base}"], "message": "m", "args": ["m"]})
    assert type(error).__name__ in ("Own", "RemoteError")
    assert isinstance(error, RemoteError)
    assert error.args == ("m",)


class Both(SystemExit, ValueError):
    pass


@pytest.mark.parametrize(
    ("ending", "name"),
    [
        (SystemExit(3), "SystemExit"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (GeneratorExit(), "GeneratorExit"),
        (asyncio.CancelledError("late"), "CancelledError"),
        (Both("both"), "Both"),
    ],
    ids=lambda each: str(each) if isinstance(each, str) else "",
)
def test_what_would_end_this_process_arrives_as_a_remote_error_of_its_name(ending: BaseException, name: str) -> None:
    for back in (crossed(ending), CODEC.decode(CODEC.encode([ending]))[0]):
        assert isinstance(back, RemoteError)
        assert not isinstance(back, (SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError))
        assert (type(back).__name__, back.args) == (name, ending.args)


def test_stand_in_of_an_ending_keeps_the_base_that_can_be_caught() -> None:
    error = rebuild({"types": ["pack:Own", "builtins:SystemExit", "builtins:ValueError"], "message": "m", "args": []})
    assert isinstance(error, ValueError)
    assert not isinstance(error, SystemExit)


def test_airlocks_own_types_do_not_mix_with_a_stand_in_wrongly() -> None:
    error = rebuild({"types": ["pack:Own", "comfy_airlock.wire.errors:ValueInvalid"], "message": "m", "args": ["m"]})
    assert isinstance(error, ValueInvalid)


def test_hostile_state_is_harmless() -> None:
    state = {"__class__": int, "__dict__": {}, "__traceback__": 1, "__cause__": 2, "__notes__": 5, 7: 8, "args": 9}
    error = rebuild({"types": ["builtins:ValueError"], "args": ["x"], "state": state, "message": "x"})
    assert (type(error), error.args, error.__cause__, error.__traceback__) == (ValueError, ("x",), None, None)
    # Python prints whatever the notes are.
    assert "x" in "".join(traceback.format_exception(type(error), error, None))


@pytest.mark.parametrize("name", ["os:system", "builtins:eval", "builtins:int", "builtins:type", ":", "", "a:b:c", "x"])
def test_name_that_is_no_exceptions_never_becomes_one(name: str) -> None:
    error = rebuild({"types": [name], "args": ["rm"], "message": "rm"})
    assert isinstance(error, RemoteError)


@given(values, values, values)
def test_any_state_gives_an_exception_or_value_invalid(types: Any, args: Any, state: Any) -> None:
    for names in (types, ["builtins:OSError"], ["builtins:UnicodeDecodeError"]):
        try:
            error = rebuild({"types": names, "args": args, "state": state, "message": "m", "traceback": "t"})
        except ValueInvalid:
            continue
        assert isinstance(error, Exception)


def test_text_that_cannot_be_made_says_so() -> None:
    assert taken_apart(Quiet())["message"] == "<Quiet whose __str__ raised RuntimeError>"


def test_arguments_that_cannot_cross_become_their_repr() -> None:
    taken = taken_apart(ValueError(len, Stubborn(), {"a": 1}))
    assert taken["args"] == ["<built-in function len>", "<Stubborn whose __repr__ raised RuntimeError>", {"a": 1}]


def test_exception_that_holds_itself_crosses_without_itself() -> None:
    error: Any = ValueError("text")
    error.args = ("text", error, [error, {"again": error}])
    error.own = error
    back: Any = crossed(error)
    summary = "ValueError('text', …, …)"
    assert back.args == ("text", summary, [summary, {"again": summary}])
    assert back.own == summary


def test_exceptions_that_hold_each_other_cross() -> None:
    first: Any = ValueError(1)
    second: Any = KeyError(2)
    first.other, second.other = second, first
    back: Any = crossed(first)
    assert (type(back.other), back.other.args, back.other.other) == (KeyError, (2,), "ValueError(1)")


def counting_codec() -> Codec:
    registry = Registry()
    registry.add(Counted, "t.Counted", Counted.take_apart, lambda _: None)
    return Codec(registry)


def nested_exception(depth: int, counted: Any) -> Exception:
    error = ValueError(0, counted)
    for level in range(1, depth):
        error = ValueError(level, error, counted)
    return error


@pytest.mark.parametrize("hold", [lambda error: error, lambda error: ValueError([error])], ids=["bare", "in a list"])
def test_each_item_is_encoded_once_however_many_exceptions_lie_around_it(hold: Any) -> None:
    counted = Counted()
    taken_apart(hold(nested_exception(30, counted)), counting_codec())
    # Once in each exception that is sent whole.
    assert 0 < counted.times <= EXCEPTIONS_DEEP_MAX


def test_container_that_an_exception_holds_is_encoded_once() -> None:
    error, counted = ValueError("x"), Counted()
    setattr(error, "held", [[0] * 1000, {"counted": counted}])
    counting_codec().encode({"error": error})
    assert counted.times == 1


def test_exceptions_are_sent_whole_up_to_a_depth() -> None:
    back: Any = crossed(nested_exception(EXCEPTIONS_DEEP_MAX, None))
    for level in reversed(range(1, EXCEPTIONS_DEEP_MAX)):
        assert (type(back), back.args[0]) == (ValueError, level)
        back = back.args[1]
    assert back.args == (0, None)
    back = crossed(nested_exception(EXCEPTIONS_DEEP_MAX + 2, None))
    for _ in range(EXCEPTIONS_DEEP_MAX - 1):
        back = back.args[1]
    assert back.args[1] == "ValueError(1, …, None)"


def test_name_of_a_file_that_is_no_utf8_crosses() -> None:
    back = crossed(ValueError("cannot read \udcff.png"))
    assert str(back) in ("cannot read \\udcff.png", "'cannot read \\udcff.png'")


def test_exception_that_is_a_dataclass_crosses_as_a_value_too() -> None:
    error = DataError(5)
    back = CODEC.decode(CODEC.encode([error]))[0]
    assert (type(back), back.a) == (DataError, 5)


@pytest.mark.parametrize("body", [None, 5, [], {}, {"code": "cancelled"}, {"code": [], "message": "m"}, {"code": "x"}])
def test_error_body_without_sense_is_a_protocol_error(body: Any) -> None:
    assert type(AirlockError.from_wire(body)) is ProtocolError


@pytest.mark.parametrize("code", sorted(ERROR_CODES))
def test_airlocks_error_crosses_with_its_code_and_details(code: str) -> None:
    body = {"code": code, "message": "m", "hint": "h", "pack": "p", "exit": "exit code 3", "log": "last\n"}
    error = AirlockError.from_wire(body)
    assert error.to_wire() == body
    assert error.fresh().to_wire() == body
    assert str(error) == "m\nlast\n→ h"
    assert AirlockError.from_wire({**body, "hint": 5}).hint is None
