"""The pack that this worker runs: imported once, its nodes looked up and described. ComfyUI's V1 conventions.

Runs the pack's code, and only here. A pack that fails to import is tried again by the next call.
"""

from __future__ import annotations

import os
import re
import sys
from functools import cached_property
from importlib.util import module_from_spec, spec_from_file_location
from typing import Any, Final

from comfy_airlock.runtime.node_state import NodeState
from comfy_airlock.wire.errors import NodeInvalid, NodeNotFound
from comfy_airlock.wire.exceptions import text_of
from comfy_airlock.wire.optional import standard

_NAMES_SHOWN: Final = 12
_CO_COROUTINE: Final = 0x80
_CO_VARKEYWORDS: Final = 0x08


class Node:
    """A node class with what is needed to call it. One instance serves all calls, as ComfyUI keeps one per node."""

    def __init__(self, name: str, cls: Any, pack: str) -> None:
        """Makes the instance.

        Raises:
            NodeInvalid: the class lacks what ComfyUI's conventions ask for.
        """
        self.name = name
        self.cls = cls
        # None as long as there is no instance.
        self.state: NodeState | None = None
        function = getattr(cls, "FUNCTION", None)
        if not isinstance(function, str) or not callable(getattr(cls, function, None)):
            raise NodeInvalid(
                f"node {name} of pack {pack}: FUNCTION is {function!r}, which is no method of {cls.__qualname__}",
                pack=pack,
                hint="FUNCTION names the method that computes the node's outputs",
            )
        if not callable(getattr(cls, "INPUT_TYPES", None)):
            raise NodeInvalid(
                f"node {name} of pack {pack} has no INPUT_TYPES", pack=pack, hint="add the classmethod INPUT_TYPES"
            )

    @cached_property
    def function(self) -> Any:
        """The bound method that computes the node's outputs."""
        instance = self.cls()
        self.state = NodeState(instance)
        return getattr(instance, self.cls.FUNCTION)

    def input_types(self) -> dict[str, dict[str, Any]]:
        """What INPUT_TYPES answers: inputs by name, below required, optional and hidden."""
        answer: dict[str, dict[str, Any]] = self.cls.INPUT_TYPES()
        return answer

    def output_types(self) -> list[str]:
        return [_type_name(each) for each in getattr(self.cls, "RETURN_TYPES", ())]

    def describe(self, display_name: str) -> dict[str, Any]:
        """The node as PROTOCOL.md's "Methods of a worker" has it: only strings, numbers, lists and maps."""
        cls = self.cls
        types = self.input_types()
        outputs = self.output_types()
        code = getattr(getattr(cls, cls.FUNCTION), "__code__", None)
        return {
            "name": self.name,
            "display_name": display_name,
            "category": str(getattr(cls, "CATEGORY", "")),
            "inputs": {group: _plain(types.get(group) or {}) for group in ("required", "optional", "hidden")},
            "input_is_list": bool(getattr(cls, "INPUT_IS_LIST", False)),
            "output_types": outputs,
            "output_names": [str(each) for each in getattr(cls, "RETURN_NAMES", outputs)],
            "output_is_list": [bool(each) for each in getattr(cls, "OUTPUT_IS_LIST", [False] * len(outputs))],
            "output_node": bool(getattr(cls, "OUTPUT_NODE", False)),
            "is_async": bool(code is not None and code.co_flags & _CO_COROUTINE),
            "validated_inputs": _parameters(getattr(cls, "VALIDATE_INPUTS", None)),
        }


class NodePack:
    """The pack in one folder.

    Attributes:
        nodes: those that were used so far, by class name.
        module: the pack's own, None before it is imported.
    """

    def __init__(self, name: str, folder: str) -> None:
        self.name = name
        self.folder = folder
        self.nodes: dict[str, Node] = {}
        self.module: Any = None
        self._mappings: dict[str, Any] | None = None
        self._display_names: dict[str, str] = {}

    def load(self) -> dict[str, Any]:
        """The pack's NODE_CLASS_MAPPINGS, imported when first asked for.

        Raises:
            NodeInvalid: the folder is no pack of V1 nodes.
            Exception: whatever its import raised.
        """
        if self._mappings is None:
            module = self._import()
            mappings = getattr(module, "NODE_CLASS_MAPPINGS", None)
            if not isinstance(mappings, dict):
                raise NodeInvalid(
                    f"pack {self.name}: {self.folder}/__init__.py has no NODE_CLASS_MAPPINGS",
                    pack=self.name,
                    hint="a pack of V1 nodes maps class names to classes in NODE_CLASS_MAPPINGS",
                )
            self.module = module
            self._mappings = {str(name): cls for name, cls in mappings.items()}
            names = getattr(module, "NODE_DISPLAY_NAME_MAPPINGS", None) or {}
            self._display_names = {str(name): str(shown) for name, shown in names.items()}
        return self._mappings

    def _import(self) -> Any:
        init = os.path.join(self.folder, "__init__.py")
        if not os.path.isfile(init):
            raise NodeInvalid(f"pack {self.name}: {self.folder} has no __init__.py", pack=self.name)
        module_name = re.sub(r"\W", "_", f"airlock_pack_{self.name}")
        spec = spec_from_file_location(module_name, init, submodule_search_locations=[self.folder])
        if spec is None or spec.loader is None:
            raise NodeInvalid(f"pack {self.name}: {init} cannot be imported", pack=self.name)
        module = module_from_spec(spec)
        # Before it runs, so that it can import its own submodules.
        sys.modules[module_name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            for name in [each for each in sys.modules if each == module_name or each.startswith(module_name + ".")]:
                del sys.modules[name]
            raise
        return module

    def node(self, name: str) -> Node:
        """The node of this class name.

        Raises:
            NodeNotFound: with the names that there are.
        """
        known = self.nodes.get(name)
        if known is not None:
            return known
        mappings = self.load()
        if name not in mappings:
            names = sorted(mappings)
            shown = ", ".join(names[:_NAMES_SHOWN]) + (" …" if len(names) > _NAMES_SHOWN else "")
            raise NodeNotFound(
                f"pack {self.name} has no node {name!r}", pack=self.name, hint=f"it has {shown or 'none'}"
            )
        node = self.nodes[name] = Node(name, mappings[name], self.name)
        return node

    @property
    def stateful(self) -> int:
        """How many nodes keep something between calls."""
        return sum(node.state is not None and node.state.is_kept for node in list(self.nodes.values()))

    def describe(self) -> dict[str, Any]:
        """The pack's nodes; those that cannot be described are listed with the reason."""
        nodes: list[dict[str, Any]] = []
        broken: list[dict[str, str]] = []
        for name in self.load():
            try:
                nodes.append(self.node(name).describe(self._display_names.get(name, name)))
            except Exception as error:  # noqa: BLE001 - INPUT_TYPES is the pack's code.
                broken.append({"name": name, "reason": f"{type(error).__name__}: {text_of(error)}"})
        return {"nodes": nodes, "broken": broken}


def _type_name(declared: Any) -> str:
    """A type as declared: a name, or the choices of a combo."""
    return str(declared) if isinstance(declared, str) else "COMBO"


def _parameters(function: Any) -> list[str]:
    """Names of the parameters that VALIDATE_INPUTS checks by itself; ``*`` for any."""
    if function is None:
        return []
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    if code is None:
        return []
    names = [name for name in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount] if name not in ("cls", "s")]
    return [*names, "*"] if code.co_flags & _CO_VARKEYWORDS else names


def _plain(value: Any) -> Any:
    """A declaration as strings, numbers, lists and maps. Packs put all kinds of things into INPUT_TYPES."""
    if value is None or isinstance(value, bool):
        return value
    for simple in (str, int, float):
        if isinstance(value, simple):
            return simple(value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset, range, standard("types").GeneratorType)):
        return [_plain(item) for item in value]
    return f"<{type(value).__qualname__}>"
