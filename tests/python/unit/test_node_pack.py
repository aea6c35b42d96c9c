"""A pack as ComfyUI's V1 conventions have it, and as packs have them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from comfy_airlock.calls.inference import InferenceMode
from comfy_airlock.runtime.main import Worker
from comfy_airlock.runtime.node_pack import NodePack
from comfy_airlock.wire.codec import Codec
from comfy_airlock.wire.errors import BadRequest, NodeInvalid, NodeNotFound

NODE = """
class Add:
    FUNCTION = "add"
    RETURN_TYPES = ("INT",)
    CATEGORY = "maths"
    made = 0
    def __init__(self):
        Add.made += 1
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"a": ("INT", {"default": 1}), "b": ("INT",)}}
    def add(self, a, b=2):
        return (a + b,)
NODE_CLASS_MAPPINGS = {"Add": Add}
"""


@pytest.fixture(autouse=True)
def _modules() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("airlock_pack_"):
            del sys.modules[name]


def pack(folder: Path, source: str, **files: str) -> NodePack:
    (folder / "__init__.py").write_text(dedent(source))
    for name, text in files.items():
        (folder / f"{name}.py").write_text(dedent(text))
    return NodePack("my-pack", str(folder))


def run(of: NodePack, name: str, **inputs: Any) -> Any:
    return Worker(of, InferenceMode()).run([name], inputs)


def test_node_runs_and_its_instance_is_kept(tmp_path: Path) -> None:
    made = pack(tmp_path, NODE)
    assert run(made, "Add", a=1) == (3,)
    assert run(made, "Add", a=1, b=5) == (6,)
    assert made.node("Add").cls.made == 1


@pytest.mark.parametrize("args", [[], ["Add", "Mul"]])
def test_what_is_run_without_one_name_is_refused(tmp_path: Path, args: list[str]) -> None:
    worker = Worker(pack(tmp_path, NODE), InferenceMode())
    with pytest.raises(BadRequest, match=f"by its name and keywords, and {len(args)} arguments came"):
        worker.run(args, {})


def test_pack_imports_its_own_modules(tmp_path: Path) -> None:
    made = pack(tmp_path, "from .nodes import NODE_CLASS_MAPPINGS", nodes=NODE)
    assert run(made, "Add", a=1, b=1) == (2,)
    assert "airlock_pack_my_pack.nodes" in sys.modules


def test_node_may_return_a_dict(tmp_path: Path) -> None:
    source = NODE.replace("return (a + b,)", "return {'ui': {'text': ['x']}, 'result': (a,)}")
    assert run(pack(tmp_path, source), "Add", a=4) == {"ui": {"text": ["x"]}, "result": (4,)}


def test_unknown_node_is_named_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(NodeNotFound) as caught:
        pack(tmp_path, NODE).node("Subtract")
    assert "'Subtract'" in caught.value.message
    assert caught.value.hint == "it has Add"


def test_long_list_of_nodes_is_cut(tmp_path: Path) -> None:
    source = NODE + "\nNODE_CLASS_MAPPINGS = {f'N{i:02}': Add for i in range(30)}"
    with pytest.raises(NodeNotFound) as caught:
        pack(tmp_path, source).node("x")
    assert (caught.value.hint or "").endswith("N11 …")


@pytest.mark.parametrize("source", ["", "NODE_CLASS_MAPPINGS = None", "NODE_CLASS_MAPPINGS = [1]"])
def test_pack_without_mappings_is_refused(tmp_path: Path, source: str) -> None:
    with pytest.raises(NodeInvalid, match="NODE_CLASS_MAPPINGS") as caught:
        pack(tmp_path, source).load()
    assert caught.value.pack == "my-pack"


def test_folder_without_init_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NodeInvalid, match=r"no __init__\.py"):
        NodePack("my-pack", str(tmp_path)).load()


@pytest.mark.parametrize("function", ["None", "5", "'missing'", "'CATEGORY'"])
def test_node_without_its_function_is_refused(tmp_path: Path, function: str) -> None:
    with pytest.raises(NodeInvalid, match="FUNCTION"):
        pack(tmp_path, NODE.replace('FUNCTION = "add"', f"FUNCTION = {function}")).node("Add")


def test_node_without_input_types_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NodeInvalid, match="INPUT_TYPES"):
        pack(tmp_path, NODE.replace("def INPUT_TYPES", "def OTHER")).node("Add")


def test_failed_import_leaves_nothing_and_is_tried_again(tmp_path: Path) -> None:
    made = pack(tmp_path, "from . import helper\nraise RuntimeError('no model')", helper="")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no model"):
            made.load()
        assert not [name for name in sys.modules if name.startswith("airlock_pack_")]
    # Longer than before, so that no cached bytecode of the same second and size is taken for it.
    (tmp_path / "__init__.py").write_text(NODE)
    assert run(made, "Add", a=1) == (3,)


def test_pack_that_registered_a_type_before_its_import_failed_can_register_it_again(tmp_path: Path) -> None:
    source = """
    import comfy_airlock
    class Mesh: pass
    comfy_airlock.register(Mesh, "test_node_pack.Mesh", lambda mesh: None, lambda state: Mesh())
    """
    made = pack(tmp_path, source + "\n    raise RuntimeError('later')")
    with pytest.raises(RuntimeError, match="later"):
        made.load()
    (tmp_path / "__init__.py").write_text(dedent(source) + NODE)
    assert set(made.load()) == {"Add"}


WEIRD = """
import itertools
class Any(str):
    def __ne__(self, other): return False
class Circle(list): pass
class Node:
    FUNCTION = "run"
    RETURN_TYPES = (Any("*"), ["a", "b"], "MASK")
    OUTPUT_NODE = 1
    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "mode": (["a", "b"],), "keys": ({"x": 1}.keys(),), "any": (Any("*"), {"default": object()}),
                "numbers": (range(3), {"min": float("inf"), "step": True, 5: None}), "lazy": ((x for x in "ab"),),
            },
            "optional": None,
        }
    async def run(self, **inputs): return ()
    @classmethod
    def VALIDATE_INPUTS(cls, mode, **rest): return True
class Raises(Node):
    @classmethod
    def INPUT_TYPES(cls):
        class Silent(Exception):
            def __str__(self): raise RuntimeError
        raise Silent
class Nothing(Node):
    INPUT_TYPES = lambda: None
class Around(Node):
    @classmethod
    def INPUT_TYPES(cls):
        circle = []
        circle.append(circle)
        return {"required": {"x": circle}}
class NoFunction: pass
NODE_CLASS_MAPPINGS = {each.__name__: each for each in (Node, Raises, Nothing, Around, NoFunction)}
NODE_DISPLAY_NAME_MAPPINGS = {"Node": "A node", 5: 6}
"""


def test_weird_declarations_are_described_and_broken_ones_listed(tmp_path: Path) -> None:
    described = pack(tmp_path, WEIRD).describe()
    (node,) = described["nodes"]
    assert node["display_name"] == "A node"
    assert node["output_types"] == ["*", "COMBO", "MASK"]
    assert (node["output_node"], node["is_async"], node["input_is_list"]) == (True, True, False)
    assert node["validated_inputs"] == ["mode", "*"]
    inputs = node["inputs"]["required"]
    assert inputs["mode"] == [["a", "b"]]
    assert inputs["numbers"] == [[0, 1, 2], {"min": float("inf"), "step": True, "5": None}]
    assert inputs["lazy"] == [["a", "b"]]
    assert inputs["any"] == ["*", {"default": "<object>"}]
    assert node["inputs"]["optional"] == node["inputs"]["hidden"] == {}
    assert {each["name"] for each in described["broken"]} == {"Raises", "Nothing", "Around", "NoFunction"}
    assert Codec().decode(Codec().encode(described)) == described


def test_worker_describes_its_process(tmp_path: Path) -> None:
    described = Worker(pack(tmp_path, NODE), InferenceMode()).describe()
    assert described["python"] == ".".join(map(str, sys.version_info[:3]))
    assert [each["name"] for each in described["nodes"]] == ["Add"]
