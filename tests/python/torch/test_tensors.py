"""torch tensors by value: what crosses is the elements, whatever graph, device or layout they had."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from comfy_airlock.calls.inference import InferenceMode
from comfy_airlock.wire.arrays import EXTRA_DTYPES, NATIVE_DTYPES, AsTensor, rebuild_named
from comfy_airlock.wire.codec import Codec
from comfy_airlock.wire.errors import ValueInvalid, ValueUnsupported
from same import same

torch = pytest.importorskip("torch", reason="torch is not installed")
np = pytest.importorskip("numpy", reason="numpy is not installed")
ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")

CODEC = Codec()


def back(value: Any) -> Any:
    return CODEC.decode(CODEC.encode(value))


@pytest.mark.parametrize("name", sorted(NATIVE_DTYPES | EXTRA_DTYPES))
def test_element_type_arrives(name: str) -> None:
    tensor = torch.tensor([[0.5, 1.0, 2.0]]).to(getattr(torch, name))
    assert same(back(tensor), tensor)


@pytest.mark.parametrize("name", sorted(EXTRA_DTYPES))
def test_element_type_that_numpy_lacks_goes_both_ways(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.array([0.5, 1.0, 2.0]).astype(getattr(ml_dtypes, name))
    tensor = back(AsTensor(array))
    assert tensor.dtype is getattr(torch, name)
    monkeypatch.setattr(
        "comfy_airlock.wire.arrays.installed", lambda each: None if each == "torch" else sys.modules[each]
    )
    assert same(back(tensor), array)


BASE = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
VIEWS = {
    "transposed": BASE.permute(2, 0, 1),
    "every other": BASE[:, ::2, 1:],
    "expanded": BASE[:1].expand(5, 3, 4),
    "with an offset": BASE[1],
    "channels last": torch.ones(1, 3, 4, 5).contiguous(memory_format=torch.channels_last),
    "conjugated": torch.tensor([1 + 2j, 3 - 4j]).conj(),
    "negated imaginary part": torch.tensor([1 + 2j]).conj().imag,
    "without axes": torch.tensor(5),
    "empty": torch.empty(0, 3, dtype=torch.int16),
    "bools": torch.tensor([True, False]),
}


@pytest.mark.parametrize("tensor", VIEWS.values(), ids=VIEWS)
def test_view_arrives_as_its_elements(tensor: Any) -> None:
    assert torch.equal(back(tensor), tensor)
    assert back(tensor).shape == tensor.shape


def test_tensor_with_a_graph_arrives_without_it() -> None:
    leaf = torch.ones(2, requires_grad=True)
    for tensor in (leaf, leaf * 2):
        arrived = back(tensor)
        assert torch.equal(arrived, tensor.detach())
        assert not arrived.requires_grad


def test_what_arrives_can_be_written_to_and_is_nobody_elses() -> None:
    sent = torch.zeros(2, 2)
    arrived = back(sent)
    arrived += 1
    assert sent.sum() == 0
    assert arrived.sum() == 4


def test_inference_tensor_crosses_and_arrives_as_the_kind_that_the_thread_makes() -> None:
    with torch.inference_mode():
        data = CODEC.encode(torch.ones(2))
        assert CODEC.decode(data).is_inference()
    assert not CODEC.decode(data).is_inference()


def test_array_in_f_order_becomes_a_tensor_of_the_same_elements() -> None:
    array = np.asfortranarray(np.arange(6, dtype="f4").reshape(2, 3))
    assert torch.equal(back(AsTensor(array)), torch.from_numpy(array.copy()))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: torch.ones(2, 2).to_sparse(), "sparse"),
        (lambda: torch.ones(2, device="meta"), "meta"),
        (lambda: torch.ones(2, dtype=torch.complex32), "complex32"),
    ],
    ids=["sparse", "meta", "complex32"],
)
@pytest.mark.filterwarnings("ignore")
def test_tensor_without_plain_elements_is_refused(make: Any, said: str) -> None:
    with pytest.raises(ValueUnsupported, match=said):
        CODEC.encode([make()])


@pytest.mark.filterwarnings("ignore")
def test_quantised_tensor_is_refused() -> None:
    tensor = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.quint8)
    with pytest.raises(ValueUnsupported, match="quantised"):
        CODEC.encode([tensor])


@pytest.mark.parametrize(
    "value", [torch.float32, torch.bfloat16, torch.device("cpu"), torch.device("cuda", 1), torch.Size([2, 3])], ids=str
)
def test_dtype_device_and_size_arrive(value: Any) -> None:
    arrived = back((value,))[0]
    assert arrived == value
    assert type(arrived) is type(value)


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("torch.dtype", "save"), ("torch.dtype", "nn"), ("torch.dtype", 5), ("torch.device", 0),
        ("torch.device", "abc"), ("torch.Size", "ab"), ("torch.Size", [1.5]),
    ],
)  # fmt: skip
def test_state_that_is_no_dtype_device_or_size_is_refused(name: str, state: Any) -> None:
    with pytest.raises(ValueInvalid):
        rebuild_named(name, state)


def test_array_of_an_element_type_that_torch_lacks_is_refused_by_name() -> None:
    with pytest.raises(ValueInvalid, match="<U1"):
        back(AsTensor(np.array(["a"])))


def test_inference_mode_is_entered_once() -> None:
    mode = InferenceMode()
    try:
        mode.enter()
        mode.enter()
        assert torch.is_inference_mode_enabled()
    finally:
        mode._entered.__exit__(None, None, None)
    assert not torch.is_inference_mode_enabled()
