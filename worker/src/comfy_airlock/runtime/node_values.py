"""What a node is given and what it gives, by the types that it declares.

An IMAGE, a MASK and the samples of a LATENT are tensors where torch is installed and numpy arrays where it isn't,
whichever they were on the other side. Other values pass as they are.
"""

from __future__ import annotations

from typing import Any, Final

from comfy_airlock.runtime.node_pack import Node
from comfy_airlock.wire.arrays import AsTensor
from comfy_airlock.wire.optional import installed, loaded

_TENSOR_TYPES: Final = frozenset({"IMAGE", "MASK", "LATENT"})


def inputs_for(node: Node, inputs: dict[str, Any]) -> dict[str, Any]:
    """The inputs as the node expects them: arrays of tensor types become tensors where torch is installed."""
    numpy = loaded("numpy")
    if numpy is None or not any(_holds_array(value, numpy) for value in inputs.values()):
        return inputs
    torch = installed("torch")
    if torch is None:
        return inputs
    types = node.input_types()
    declared = {**(types.get("optional") or {}), **(types.get("required") or {})}
    return {
        name: _map_arrays(value, numpy, torch.from_numpy) if _is_tensor_type(declared.get(name)) else value
        for name, value in inputs.items()
    }


def _is_tensor_type(declaration: Any) -> bool:
    first = declaration[0] if isinstance(declaration, (tuple, list)) and declaration else None
    return isinstance(first, str) and str(first) in _TENSOR_TYPES


def outputs_of(node: Node, result: Any) -> Any:
    """The node's result with arrays of tensor types marked, so that they arrive as tensors."""
    numpy = loaded("numpy")
    if numpy is None:
        return result
    if isinstance(result, dict) and isinstance(result.get("result"), (tuple, list)):
        return {**result, "result": _mark(node, result["result"], numpy)}
    return _mark(node, result, numpy) if isinstance(result, (tuple, list)) else result


def _mark(node: Node, outputs: tuple[Any, ...] | list[Any], numpy: Any) -> Any:
    types = node.output_types()
    marked = [
        _map_arrays(value, numpy, AsTensor) if index < len(types) and types[index] in _TENSOR_TYPES else value
        for index, value in enumerate(outputs)
    ]
    return tuple(marked) if isinstance(outputs, tuple) else marked


def _holds_array(value: Any, numpy: Any) -> bool:
    if isinstance(value, dict):
        return any(_holds_array(item, numpy) for item in value.values())
    if isinstance(value, (list, tuple)):
        return any(_holds_array(item, numpy) for item in value)
    return isinstance(value, numpy.ndarray)


def _map_arrays(value: Any, numpy: Any, convert: Any) -> Any:
    """Converts an array, or those in a list (a list output) or in a dict (a LATENT)."""
    if isinstance(value, numpy.ndarray):
        return convert(value)
    if type(value) is list:
        return [_map_arrays(item, numpy, convert) for item in value]
    if type(value) is dict:
        return {key: _map_arrays(item, numpy, convert) for key, item in value.items()}
    return value
