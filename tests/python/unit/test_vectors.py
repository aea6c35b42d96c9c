"""The golden vectors: what Python writes and reads is what TypeScript does."""

from __future__ import annotations

from collections import OrderedDict
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import UUID

import pytest

from comfy_airlock.memory.unpacking import unpack
from comfy_airlock.wire.arrays import AsTensor
from comfy_airlock.wire.codec import Codec
from comfy_airlock.wire.errors import ERROR_CODES, AirlockError, ValueInvalid
from comfy_airlock.wire.extensions import ARRAY, NAMED
from comfy_airlock.wire.frame import ATTACHMENT, CALL, Cargo, Frame, FrameAssembler, build_frame
from comfy_airlock.wire.laden import LadenBody
from comfy_airlock.wire.limits import FRAME_BYTES_MAX
from comfy_airlock.wire.registry import Opaque
from feeding import feed
from same import same
from vector_types import Access, Colour, Point, Size
from vectors import FOLDER, build_msgpack, build_value, load, unhex

NAMES: dict[str, Any] = {
    each.__name__: each
    for each in (
        OrderedDict, date, datetime, time, timedelta, timezone, Decimal, Fraction, Path, PurePosixPath, UUID,
        Access, Colour, Point, Size, Opaque,
    )
}  # fmt: skip

VALUES = load("values.json")
INVALID = load("invalid-values.json")
FRAMES = load("frames.json")


def named(cases: list[dict[str, Any]]) -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in cases]


def value_of(case: dict[str, Any]) -> Any:
    needs = case.get("needs")
    if needs is not None:
        pytest.importorskip(needs, reason=f"{needs} is not installed")
    if "python" in case:
        modules = {name: import_module(name) for name in ("numpy", "torch") if find_spec(name) is not None}
        return eval(case["python"], {**NAMES, **modules})
    if "array" in (case["value"] if isinstance(case["value"], dict) else {}):
        return array_of(case["value"]["array"])
    return build_value(case["value"])


def array_of(parts: dict[str, Any]) -> Any:
    """Built by numpy and torch directly, not by the code under test."""
    data, shape, dtype = bytearray(unhex(parts["data"])), parts["shape"], build_value(parts["dtype"])
    if parts["kind"] == "tensor":
        torch = import_module("torch")
        element = getattr(torch, dtype)
        flat = torch.frombuffer(data, dtype=element) if data else torch.empty(0, dtype=element)
        return flat.reshape(shape)
    numpy = import_module("numpy")
    extra = isinstance(dtype, str) and dtype == "bfloat16"
    element = import_module("ml_dtypes").bfloat16 if extra else dtype
    return numpy.frombuffer(data, dtype=element).reshape(shape, order=parts["order"])


@pytest.mark.parametrize("case", named([each for each in VALUES if not each.get("decodes_only")]))
def test_value_encodes_to_its_vector(case: dict[str, Any]) -> None:
    assert Codec().encode(value_of(case)).hex() == unhex(case["hex"]).hex()


@pytest.mark.parametrize("field", ["hex", "typescript_hex"])
@pytest.mark.parametrize("case", named(VALUES))
def test_vector_decodes_to_its_value(case: dict[str, Any], field: str) -> None:
    if field not in case:
        return
    expected = value_of(case)
    assert same(Codec().decode(unhex(case[field])), expected)


@pytest.mark.parametrize("case", named([each for each in VALUES if not each.get("decodes_only")]))
def test_vector_is_what_its_description_says(case: dict[str, Any]) -> None:
    assert build_msgpack(case["value"]).hex() == unhex(case["hex"]).hex()


def test_vectors_have_unique_names() -> None:
    for cases in (VALUES, INVALID, FRAMES["frames"], FRAMES["malformed"]):
        names = [case["name"] for case in cases]
        assert len(names) == len(set(names))


def test_vectors_cover_every_extension() -> None:
    text = str([case["value"] for case in VALUES])
    for kind in ("tuple", "set", "frozenset", "complex", "array", "named", "repeat", "bytes"):
        assert f"'{kind}'" in text
    assert {ARRAY, NAMED} == {5, 6}


@pytest.mark.parametrize("case", named([each for each in INVALID if "python" in each["refused_by"]]))
def test_invalid_bytes_are_refused_and_the_codec_goes_on(case: dict[str, Any]) -> None:
    codec = Codec()
    with pytest.raises(ValueInvalid):
        codec.decode(unhex(case["hex"]))
    assert codec.decode(codec.encode((1, {"a": b"x"}))) == (1, {"a": b"x"})


def fed(data: bytes, size: int, assembler: FrameAssembler | None = None) -> list[Frame]:
    return feed(assembler or FrameAssembler(), [data[at : at + size] for at in range(0, len(data), size)])


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize("case", named(FRAMES["frames"]))
def test_frame_is_read_from_its_vector(case: dict[str, Any], size: int) -> None:
    (frame,) = fed(unhex(case["hex"]), size)
    attachments = b"".join(ATTACHMENT.pack(*each) for each in case.get("attachments", []))
    assert frame._replace(body=bytes(frame.body).hex()) == (
        case["kind"], case["peer"], case["call"], case["body"],
        case["deadline_ms"], case.get("parent"), case.get("references", False), case.get("arrays", False), attachments,
    )  # fmt: skip


@pytest.mark.parametrize("case", named(FRAMES["frames"]))
def test_frame_is_written_as_its_vector(case: dict[str, Any]) -> None:
    attachments = b"".join(ATTACHMENT.pack(*each) for each in case.get("attachments", []))
    cargo = Cargo(case.get("references", False), case.get("arrays", False), attachments)
    extras = case["deadline_ms"], case.get("parent"), cargo
    assert build_frame(case["kind"], case["peer"], case["call"], unhex(case["body"]), *extras).hex() == case["hex"]


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_frames_are_cut_out_of_one_stream(size: int) -> None:
    stream = b"".join(unhex(case["hex"]) for case in FRAMES["frames"])
    assert [bytes(frame.body).hex() for frame in fed(stream, size)] == [case["body"] for case in FRAMES["frames"]]


@pytest.mark.parametrize("size", [1, 1 << 20])
@pytest.mark.parametrize("case", named(FRAMES["malformed"]))
def test_malformed_frame_is_refused_with_its_code(case: dict[str, Any], size: int) -> None:
    assembler = FrameAssembler(case.get("frame_bytes_max", FRAME_BYTES_MAX))
    with pytest.raises(AirlockError) as caught:
        fed(unhex(case["hex"]), size, assembler)
    assert caught.value.code == case["code"]


@pytest.mark.parametrize("case", FRAMES["deadlines"], ids=lambda case: str(case["deadline_ms"]))
def test_deadline_is_rounded_up_and_bounded(case: dict[str, Any]) -> None:
    assert build_frame(CALL, 0, 0, b"", case["deadline_ms"]).hex() == case["hex"]


def test_error_codes_are_the_closed_list() -> None:
    assert sorted(ERROR_CODES) == load("errors.json")


def test_marked_array_encodes_as_a_tensor() -> None:
    pytest.importorskip("numpy", reason="numpy is not installed")
    (case,) = [each for each in VALUES if each["name"] == "array float32 tensor"]
    array = array_of({**case["value"]["array"], "kind": "ndarray", "dtype": "<f4"})
    assert Codec().encode(AsTensor(array)).hex() == case["hex"]


class _Table:
    """The memory that a frame's attachments name, as decoding asks for it."""

    noted: dict[int, list[Any]] = {}

    def __init__(self, blocks: list[str]) -> None:
        self._blocks = blocks

    def from_entries(self, entries: Any, body: LadenBody) -> list[Any]:
        del body
        blocks = [unhex(each) for each in self._blocks]
        return unpack(
            entries, lambda: [bytearray(each.ljust(max(4096, -(-len(each) // 4096) * 4096), b"\0")) for each in blocks]
        )


def body_of(case: dict[str, Any]) -> tuple[Codec, LadenBody]:
    codec = Codec(arrays=_Table(case["blocks"]))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    body = LadenBody(unhex(case["hex"]))
    body.has_arrays = True
    return codec, body


def elements_of(value: Any) -> Any:
    """A value with its arrays as what they are of: kind, type, shape, and elements in the order C, by numpy."""
    if isinstance(value, dict):
        return {key: elements_of(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(elements_of(item) for item in value)
    if hasattr(value, "detach"):
        torch = import_module("torch")
        raw = value.contiguous().reshape(-1).view(torch.uint8)
        return "tensor", str(value.dtype).removeprefix("torch."), tuple(value.shape), bytes(raw.tolist())
    if hasattr(value, "__array_interface__") or hasattr(value, "tobytes"):
        return "ndarray", str(value.dtype), value.shape, value.tobytes()
    return value


def described(description: Any) -> Any:
    """What a description of a value comes to, by numpy alone."""
    if not isinstance(description, dict):
        return description
    ((kind, content),) = description.items()
    if kind in ("list", "tuple"):
        return {"list": list, "tuple": tuple}[kind](map(described, content))
    if kind == "dict":
        return {described(key): described(item) for key, item in content}
    if kind != "array":
        return build_value(description)
    numpy = import_module("numpy")
    dtype, order, shape = build_value(content["dtype"]), content["order"], content["shape"]
    is_extra = dtype == "bfloat16"
    fields = [tuple(each) for each in dtype] if isinstance(dtype, list) else dtype
    element = import_module("ml_dtypes").bfloat16 if is_extra else numpy.dtype(fields)
    flat = numpy.frombuffer(unhex(content["data"]), element)
    axes = order if isinstance(order, list) else None
    if axes is None:
        array = flat.reshape(shape, order=order)
    else:
        array = flat.reshape([shape[axis] for axis in axes]).transpose(numpy.argsort(axes))
    kind = content["kind"] if find_spec("torch") is not None else "ndarray"
    return kind, str(array.dtype), tuple(shape), array.tobytes()


ARRAYS = load("arrays.json") if (FOLDER / "arrays.json").exists() else {"bodies": [], "invalid": []}


@pytest.mark.parametrize("case", named(ARRAYS["bodies"]))
def test_body_with_a_table_decodes_to_its_value(case: dict[str, Any]) -> None:
    pytest.importorskip("numpy", reason="numpy is not installed")
    codec, body = body_of(case)
    assert elements_of(codec.decode(body)) == described(case["value"])


@pytest.mark.parametrize("case", named(ARRAYS["invalid"]))
def test_body_with_an_invalid_table_is_refused(case: dict[str, Any]) -> None:
    codec, body = body_of(case)
    with pytest.raises(ValueInvalid):
        codec.decode(body)
