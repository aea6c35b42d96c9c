"""A host with torch: workers that have none, and workers that share the host's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from comfy_airlock import Airlock, Pack, connect

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


_PACK = """import os
import sys

class Multiply:
    RETURN_TYPES = ("*",)
    FUNCTION = "run"
    @classmethod
    def INPUT_TYPES(cls): return {"required": {}}
    def run(self, one, other):
        import torch
        parent = open(f"/proc/{os.getppid()}/cmdline").read()
        torch.manual_seed(1)
        noise = torch.rand(4)
        seen = {"torch": torch.__file__, "prefix": sys.prefix, "parent": parent, "threads": torch.get_num_threads()}
        return (one @ other, noise, seen)

NODE_CLASS_MAPPINGS = {"Multiply": Multiply}
"""


def multiply(airlock: Airlock, folder: Path, manifest: str, dependencies: str = "") -> dict[str, Any]:
    """Has a worker multiply matrices large enough for all of torch's threads; what it saw, if it did so rightly."""
    (folder / "__init__.py").write_text(_PACK)
    project = f'[project]\nname = "multiply"\nversion = "1.0"\ndependencies = [{dependencies}]\n'
    (folder / "pyproject.toml").write_text(f"{project}[tool.comfy.isolation]\ncan_isolate = true\n{manifest}\n")
    pack = airlock.open(folder)
    try:
        one, other = torch.rand(700, 700), torch.rand(700, 700)
        product, noise, seen = pack.call("Multiply", one=one, other=other)
        assert torch.allclose(product, one @ other, rtol=1e-4)
        torch.manual_seed(1)
        assert torch.equal(noise, torch.rand(4))
        assert seen["threads"] == torch.get_num_threads()
        return seen
    finally:
        pack.close()


def test_a_forked_worker_computes_what_its_host_does(airlock: Airlock, tmp_path: Path) -> None:
    seen = multiply(airlock, tmp_path, "share_torch = true")
    assert seen["torch"] == torch.__file__
    assert "fork_server.py" in seen["parent"]


def test_a_pack_that_shares_no_torch_has_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "UV_FIND_LINKS" not in os.environ and "PIP_FIND_LINKS" not in os.environ:
        monkeypatch.setenv("UV_TORCH_BACKEND", "cpu")
    with connect() as host:
        seen = multiply(host, tmp_path, "share_torch = false", f'"torch=={torch.__version__}"')
    assert seen["torch"].startswith(seen["prefix"])
    assert seen["torch"] != torch.__file__
    assert "fork_server.py" not in seen["parent"]
