"""Arrays of tensor types are marked on their way out, and nothing else is touched."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from comfy_airlock.runtime.node_pack import Node
from comfy_airlock.runtime.node_values import inputs_for, outputs_of
from comfy_airlock.wire.arrays import AsTensor

IMAGE = np.zeros((1, 2, 2, 3), "f4")


class Declared:
    FUNCTION = "run"
    RETURN_TYPES = ("IMAGE", "LATENT", "ARRAY", "MASK")

    @classmethod
    def INPUT_TYPES(cls) -> Any:
        return {"required": {"image": ("IMAGE",), "array": ("ARRAY",)}, "optional": {"mask": ("MASK",)}}

    def run(self) -> None: ...


NODE = Node("Declared", Declared, "pack")


@pytest.mark.parametrize("make", [tuple, list])
def test_outputs_of_tensor_types_are_marked(make: Any) -> None:
    outputs = outputs_of(NODE, make([IMAGE, {"samples": IMAGE, "seed": 1}, IMAGE, [IMAGE]]))
    assert type(outputs) is make
    image, latent, array, masks = outputs
    assert type(image) is AsTensor
    assert image.value is IMAGE
    assert type(latent["samples"]) is AsTensor
    assert latent["seed"] == 1
    assert array is IMAGE
    assert type(masks[0]) is AsTensor


def test_result_in_a_dict_is_marked_and_the_rest_of_it_kept() -> None:
    marked = outputs_of(NODE, {"ui": {"images": []}, "result": (IMAGE,)})
    assert type(marked["result"][0]) is AsTensor
    assert marked["ui"] == {"images": []}


@pytest.mark.parametrize("result", [None, 5, {"ui": {}}, "text", IMAGE], ids=lambda each: type(each).__name__)
def test_result_of_another_kind_passes_as_it_is(result: Any) -> None:
    assert outputs_of(NODE, result) is result or outputs_of(NODE, result) == result


def test_more_outputs_than_declared_pass_as_they_are() -> None:
    assert outputs_of(NODE, (1, 2, 3, 4, IMAGE))[4] is IMAGE


def test_inputs_stay_arrays_where_torch_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comfy_airlock.runtime.node_values.installed", lambda name: None)
    inputs = {"image": IMAGE}
    assert inputs_for(NODE, inputs)["image"] is IMAGE


def test_inputs_without_arrays_cost_nothing() -> None:
    inputs = {"image": [1, {"x": 2}]}
    assert inputs_for(NODE, inputs) is inputs


def test_only_inputs_of_tensor_types_become_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    class Torch:
        @staticmethod
        def from_numpy(array: Any) -> Any:
            return ("tensor", array)

    monkeypatch.setattr("comfy_airlock.runtime.node_values.installed", lambda name: Torch)
    inputs = inputs_for(NODE, {"image": IMAGE, "array": IMAGE, "mask": [IMAGE], "other": IMAGE})
    assert inputs["image"] == ("tensor", IMAGE)
    assert inputs["array"] is inputs["other"] is IMAGE
    assert inputs["mask"] == [("tensor", IMAGE)]
