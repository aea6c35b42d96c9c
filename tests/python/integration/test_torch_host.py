"""A host with torch: workers that have none, and workers that share the host's."""

from __future__ import annotations

import os

import pytest

from comfy_airlock import Airlock, Pack

from .conftest import PACKS

torch = pytest.importorskip("torch", reason="torch is not in this environment; `npm test` has one where it is")


@pytest.fixture(scope="module")
def shared(airlock: Airlock) -> Pack:
    pack = airlock.open(PACKS / "torch-pack")
    # Its line is there before the first test looks for what it leaves behind.
    pack.describe()
    return pack


def test_an_image_is_a_tensor_here_and_an_array_where_there_is_no_torch(arrays: Pack) -> None:
    image = torch.rand(1, 32, 32, 3)
    inverted, seen = arrays.call("Invert", image=image)
    assert seen.startswith("numpy ")
    assert isinstance(inverted, torch.Tensor)
    assert torch.equal(inverted, 1.0 - image)


def test_bfloat16_arrives_as_an_ml_dtypes_array_where_there_is_no_torch(arrays: Pack) -> None:
    tensor = torch.arange(6, dtype=torch.bfloat16).reshape(2, 3)
    back, seen = arrays.call("Echo", value=tensor)
    assert seen == "numpy.ndarray bfloat16"
    assert back.tolist() == tensor.tolist()


def test_a_pack_shares_the_hosts_torch_with_its_own_pins_first(shared: Pack) -> None:
    (seen,) = shared.call("Where")
    assert seen["torch"] == torch.__file__
    assert seen["torch_version"] == torch.__version__
    assert seen["numpy_version"] == "1.26.4"
    assert not seen["numpy"].startswith(os.path.dirname(os.path.dirname(torch.__file__)))
    assert seen["inference_mode"]
    assert shared.describe()["modules"]["torch"] == str(torch.__version__)


def test_a_tensor_goes_to_a_worker_with_torch_and_back(shared: Pack) -> None:
    image = torch.rand(2, 16, 16, 3)
    (inverted,) = shared.call("Invert", image=image)
    assert isinstance(inverted, torch.Tensor)
    assert torch.equal(inverted, 1.0 - image)
    # Built in this thread, which is not in inference mode: an ordinary tensor, of which gradients can be asked.
    assert not inverted.is_inference()
