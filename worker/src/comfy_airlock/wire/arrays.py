"""Arrays and tensors by value: numpy arrays and scalars, torch tensors, dtypes and devices.

An array crosses as ``[kind, dtype, shape, order, data]``. The kind says what it becomes: ``tensor`` a torch tensor
where torch is installed, else a numpy array; ``ndarray`` a numpy array. Element types that torch and numpy share go by
name (``float32``, ``bfloat16``); others by numpy's own description (``<U5``, ``[('x', '<f4'), …]``). Neither library is
imported before a value needs it.
"""

from __future__ import annotations

from math import prod
from typing import Any, Final, NamedTuple

from comfy_airlock.wire import states
from comfy_airlock.wire.errors import ValueInvalid, ValueUnsupported
from comfy_airlock.wire.limits import ARRAY_AXES_MAX
from comfy_airlock.wire.optional import installed, loaded, standard
from comfy_airlock.wire.registry import Rebuild

NATIVE_DTYPES: Final = frozenset(
    "bool uint8 uint16 uint32 uint64 int8 int16 int32 int64 float16 float32 float64 complex64 complex128".split()
)
"""Element types that numpy has by itself."""

EXTRA_DTYPES: Final = frozenset(
    "bfloat16 float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz float8_e8m0fnu".split()
)
"""Element types that torch has by itself, and numpy with ml_dtypes."""

_AXIS_LENGTH_MAX: Final = 2**63 - 1
"""What numpy and torch can index by."""


class Parts(NamedTuple):
    """An array, taken apart."""

    kind: str
    dtype: Any
    shape: list[int]
    order: str
    data: bytes | bytearray | memoryview


def take_apart(value: Any) -> Parts | None:
    """The parts of a numpy array or a torch tensor; None for anything else.

    Raises:
        ValueUnsupported: it holds Python objects, or is sparse, quantised, nested, or without data.
    """
    numpy = loaded("numpy")
    if numpy is not None and isinstance(value, numpy.ndarray):
        return _take_apart_ndarray(numpy, value)
    torch = loaded("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return _take_apart_tensor(torch, value)
    return None


def rebuild(parts: Any) -> Any:
    """The array that the parts stand for, writable and with memory of its own.

    Raises:
        ValueInvalid: the parts don't fit each other, or what is needed to hold them is not installed.
    """
    if not isinstance(parts, list) or len(parts) != 5:
        raise ValueInvalid("an array needs kind, dtype, shape, order and data")
    kind, dtype, shape, order, data = parts
    well_formed = (
        kind in ("tensor", "ndarray")
        and isinstance(shape, list)
        # Before they are multiplied: a shape of a million enormous lengths would take for ever.
        and len(shape) <= ARRAY_AXES_MAX
        and all(type(length) is int and 0 <= length <= _AXIS_LENGTH_MAX for length in shape)
        and order in ("C", "F")
        and isinstance(data, bytes)
    )
    if not well_formed:
        raise ValueInvalid("an array's kind, shape, order or data is malformed")
    checked = Parts(kind, dtype, shape, order, data)
    if kind == "tensor":
        torch = installed("torch")
        if torch is not None:
            return _rebuild_tensor(torch, checked)
    return _rebuild_ndarray(checked)


def named_state(value: Any) -> tuple[str, Any] | None:
    """Name and state of a numpy scalar or dtype, or of a torch dtype, device or size; None for anything else."""
    numpy = loaded("numpy")
    if numpy is not None:
        if isinstance(value, numpy.generic):
            array = numpy.asarray(value)
            return "numpy.scalar", [describe_dtype(numpy, array.dtype), array.tobytes()]
        if isinstance(value, numpy.dtype):
            return "numpy.dtype", describe_dtype(numpy, value)
    torch = loaded("torch")
    if torch is not None:
        if isinstance(value, torch.dtype):
            return "torch.dtype", str(value).removeprefix("torch.")
        if isinstance(value, torch.device):
            return "torch.device", str(value)
        if isinstance(value, torch.Size):
            return "torch.Size", list(value)
    return None


def rebuild_named(name: str, state: Any) -> Any:
    """The counterpart of :func:`named_state`; None where the name is not one of these.

    Raises:
        ValueInvalid: numpy or torch is needed and not installed, or the state makes no sense.
    """
    rebuild = _REBUILD.get(name)
    return None if rebuild is None else rebuild(state)


def _rebuild_scalar(state: Any) -> Any:
    description, data = state
    (scalar,) = _need("numpy", "numpy.scalar").frombuffer(data, dtype=numpy_dtype(description))
    return scalar


def _rebuild_dtype(state: Any) -> Any:
    _need("numpy", "numpy.dtype")
    return numpy_dtype(state)


def _rebuild_torch_dtype(state: Any) -> Any:
    torch = _need("torch", "torch.dtype")
    # torch has much else by other names, which nobody may ask for here.
    dtype = getattr(torch, state, None)
    if not isinstance(dtype, torch.dtype):
        raise ValueInvalid(f"this version of torch has no dtype {state}")
    return dtype


_BUILD: Final[dict[str, tuple[states.Fits, Rebuild]]] = {
    "numpy.scalar": (states.is_record(states.is_anything, states.is_bytes), _rebuild_scalar),
    "numpy.dtype": (states.is_anything, _rebuild_dtype),
    "torch.dtype": (states.is_text, _rebuild_torch_dtype),
    "torch.device": (states.is_text, lambda state: _need("torch", "torch.device").device(state)),
    "torch.Size": (states.is_list_of(states.is_int), lambda state: _need("torch", "torch.Size").Size(state)),
}

_REBUILD: Final = {name: states.checked(name, fits, build) for name, (fits, build) in _BUILD.items()}


def _need(module: str, what: str) -> Any:
    found = installed(module)
    if found is None:
        raise ValueInvalid(
            f"a {what} arrived, and {module} is not installed here", hint=f"add {module} to this side's dependencies"
        )
    return found


def describe_dtype(numpy: Any, dtype: Any) -> Any:
    """A dtype as it crosses: a name where torch and numpy share it, else numpy's own description."""
    if dtype.name in EXTRA_DTYPES or (dtype.isnative and dtype.name in NATIVE_DTYPES):
        return dtype.name
    if dtype.hasobject:
        raise ValueUnsupported(
            "an array of Python objects cannot cross", hint="convert it to a plain element type, or to a list"
        )
    described = numpy.lib.format.dtype_to_descr(dtype)
    if dtype.itemsize == 0 or numpy.lib.format.descr_to_dtype(described) != dtype:
        raise ValueUnsupported(
            f"an array of {dtype.name} cannot cross", hint="convert it to an element type that numpy has by itself"
        )
    return described


def numpy_dtype(description: Any) -> Any:
    """The element type that a description stands for.

    Raises:
        ValueInvalid: it stands for none, or numpy is not installed here.
    """
    numpy = _need("numpy", "numpy array")
    if isinstance(description, str) and description in EXTRA_DTYPES:
        ml_dtypes = installed("ml_dtypes")
        if ml_dtypes is None or not hasattr(ml_dtypes, description):
            raise ValueInvalid(
                f"an array of {description} arrived, which numpy alone cannot hold",
                hint="add ml_dtypes, or torch, to this side's dependencies",
            )
        return numpy.dtype(getattr(ml_dtypes, description))
    try:
        dtype = numpy.lib.format.descr_to_dtype(description)
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise ValueInvalid(f"{description!r} describes no element type: {error}") from error
    if dtype.hasobject or dtype.itemsize == 0:
        raise ValueInvalid(f"an array of {dtype} arrived, which is never sent")
    return dtype


def check_ndarray(numpy: Any, array: Any) -> Any:
    """The description of its element type.

    Raises:
        ValueUnsupported: it can't cross.
    """
    if type(array) not in (numpy.ndarray, numpy.memmap):
        raise ValueUnsupported(
            f"a {type(array).__name__} cannot cross: it is more than its elements",
            hint="send numpy.asarray(value), or the parts that it is made of",
        )
    return describe_dtype(numpy, array.dtype)


def _take_apart_ndarray(numpy: Any, array: Any) -> Parts:
    description = check_ndarray(numpy, array)
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    flat = (array.T if order == "F" else numpy.ascontiguousarray(array)).reshape(-1)
    # Extra element types have no buffer of their own, so the bytes are seen as uint8; empty ones have no bytes to see.
    data = flat.view(numpy.uint8).data if flat.nbytes else b""
    return Parts("ndarray", description, list(array.shape), order, data)


def _rebuild_ndarray(parts: Parts) -> Any:
    numpy = _need("numpy", "array" if parts.kind == "ndarray" else "tensor")
    dtype = numpy_dtype(parts.dtype)
    _check_size(parts, dtype.itemsize)
    if not parts.data:
        return numpy.zeros(parts.shape, dtype=dtype, order=parts.order)
    # Received bytes are immutable, and what a node gets it may write to.
    return numpy.frombuffer(bytearray(parts.data), dtype=dtype).reshape(parts.shape, order=parts.order)


def check_tensor(torch: Any, tensor: Any) -> str:
    """The name of its element type.

    Raises:
        ValueUnsupported: it can't cross.
    """
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_nested:
        kind = "quantised" if tensor.is_quantized else "nested" if tensor.is_nested else "sparse"
        raise ValueUnsupported(f"a {kind} tensor cannot cross", hint="send a dense tensor, e.g. tensor.to_dense()")
    if tensor.is_meta:
        raise ValueUnsupported("a tensor on the meta device has no elements to send")
    name = str(tensor.dtype).removeprefix("torch.")
    if name not in NATIVE_DTYPES and name not in EXTRA_DTYPES:
        raise ValueUnsupported(f"a tensor of {name} cannot cross", hint="convert it to an ordinary element type")
    return name


def _take_apart_tensor(torch: Any, tensor: Any) -> Parts:
    name = check_tensor(torch, tensor)
    # What crosses is the value: no graph, no device, no lazy conjugate.
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    size = plain.numel() * plain.element_size()
    data: bytes | memoryview = b""
    if size:
        buffer = (standard("ctypes").c_char * size).from_address(plain.data_ptr())
        # The view is of memory that the tensor owns, which may be a copy that nobody else holds.
        buffer.owner = plain
        data = memoryview(buffer).cast("B")
    return Parts("tensor", name, list(tensor.shape), "C", data)


def torch_dtype(torch: Any, name: Any) -> Any:
    """The element type of this name.

    Raises:
        ValueInvalid: it names none.
    """
    known = isinstance(name, str) and (name in NATIVE_DTYPES or name in EXTRA_DTYPES)
    dtype: Any = getattr(torch, name, None) if known else None
    if not isinstance(dtype, torch.dtype):
        raise ValueInvalid(f"this version of torch has no tensors of {name!r}")
    return dtype


def _rebuild_tensor(torch: Any, parts: Parts) -> Any:
    dtype = torch_dtype(torch, parts.dtype)
    _check_size(parts, dtype.itemsize)
    if not parts.data:
        return torch.empty(parts.shape, dtype=dtype)
    flat = torch.frombuffer(bytearray(parts.data), dtype=dtype)
    if parts.order == "F":
        return flat.reshape(parts.shape[::-1]).permute(*reversed(range(len(parts.shape))))
    return flat.reshape(parts.shape)


def _check_size(parts: Parts, item_bytes: int) -> None:
    needed = prod(parts.shape) * item_bytes
    if needed != len(parts.data):
        raise ValueInvalid(f"an array of shape {parts.shape} needs {needed} bytes, and {len(parts.data)} arrived")


def is_array_type(cls: type) -> bool:
    """Whether values of this type cross as arrays, or as what is marked as one."""
    if cls is AsTensor or cls is LargeBytes:
        return True
    numpy, torch = loaded("numpy"), loaded("torch")
    return (numpy is not None and issubclass(cls, numpy.ndarray)) or (
        torch is not None and issubclass(cls, torch.Tensor)
    )


class AsTensor:
    """Marks an array as an IMAGE, MASK or the like: where torch is installed it arrives as a tensor."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class LargeBytes:
    """Marks bytes that are to travel as an array does, and arrive as bytes."""

    __slots__ = ("value",)

    def __init__(self, value: bytes | bytearray | memoryview) -> None:
        self.value = value
