"""A worker: one process, one pack, one connection. Says hello, then answers calls until the server is gone."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final

from comfy_airlock.calls.inference import InferenceMode
from comfy_airlock.calls.service import Method, Whole
from comfy_airlock.runtime.entry import EntryContext
from comfy_airlock.runtime.host_link import HostLink
from comfy_airlock.runtime.lifeline import die_with, hold
from comfy_airlock.runtime.logs import LogForwarding
from comfy_airlock.runtime.node_pack import Node, NodePack
from comfy_airlock.runtime.node_values import inputs_for, outputs_of
from comfy_airlock.runtime.recovery import Recovery
from comfy_airlock.runtime.streams import Streams
from comfy_airlock.wire.codec import Codec
from comfy_airlock.wire.connection import SERVER_PEER, Connection
from comfy_airlock.wire.errors import BadRequest
from comfy_airlock.wire.frame import EVENT
from comfy_airlock.wire.optional import loaded, standard

_REPORTED_MODULES: Final = ("numpy", "torch")
_MODULES: Final = sys.modules
_PYTHON_VERSION: Final = ".".join(map(str, sys.version_info[:3]))


class Worker:
    """What a worker can be called for."""

    def __init__(self, pack: NodePack, inference: InferenceMode) -> None:
        self._pack = pack
        self._inference = inference
        self._functions: dict[str, Callable[..., Any]] = {}
        #: Told that a node has run, where the pack's state is kept.
        self.on_run: Callable[[], object] | None = None
        #: Told that the pack was imported, or tried to.
        self.on_loaded: Callable[[], object] | None = None

    def run(self, args: list[Any], inputs: dict[str, Any]) -> Any:
        """Calls a node's function; returns what it returned, or an awaitable of that.

        Args:
            args: the node's name.

        Raises:
            BadRequest: the arguments are not that.
        """
        try:
            (name,) = args
        except ValueError:
            raise BadRequest(
                f"a node is run by its name and keywords, and {len(args)} arguments came", pack=self._pack.name
            ) from None
        function = self._functions.get(name) or self._load(name)
        # Arrays there are only where numpy is.
        result = function(**(inputs_for(self._pack.node(name), inputs) if "numpy" in _MODULES else inputs))
        if self.on_run is not None:
            self.on_run()
        if hasattr(result, "__await__"):
            return self._awaited(self._pack.node(name), result)
        return outputs_of(self._pack.node(name), result) if "numpy" in _MODULES else result

    def _load(self, name: str) -> Callable[..., Any]:
        """The function of a node that is used for the first time."""
        node = self._pack.node(name)
        if self.on_loaded is not None:
            self.on_loaded()
        # The pack may have been imported just now, and torch by it.
        self._inference.enter()
        function = self._functions[name] = node.function
        return function

    async def _awaited(self, node: Node, result: Awaitable[Any]) -> Any:
        outputs = outputs_of(node, await result)
        if self.on_run is not None:
            self.on_run()
        return outputs

    def describe(self) -> dict[str, Any]:
        """This process, and the pack's nodes."""
        described = self._pack.describe()
        # torch's is a text with methods of its own.
        versions = {name: getattr(loaded(name), "__version__", None) for name in _REPORTED_MODULES}
        modules = {name: None if version is None else str(version) for name, version in versions.items()}
        return {"pid": os.getpid(), "python": _PYTHON_VERSION, "modules": modules, **described}


def main(parent: int | None = None) -> None:
    """Runs the worker whose socket and token are in the environment.

    Args:
        parent: the number of the process that this one was forked from; by default the server has started it.
    """
    lifeline = hold()
    path = os.environ.pop("AIRLOCK_SOCKET")
    # Good for one hello: nothing that this process starts can use it again.
    token = os.environ.pop("AIRLOCK_TOKEN")
    if "AIRLOCK_SHARED_TORCH" in os.environ:
        # It needs importlib.metadata, which takes as long to import as all the rest of a worker.
        standard("comfy_airlock.runtime.shared_torch").share_torch(os.environ.pop("AIRLOCK_SHARED_TORCH"))
    codec = Codec()
    hello = {
        "role": "worker",
        "token": token,
        "name": "worker",
        "python": {"executable": sys.executable, "version": _PYTHON_VERSION},
    }
    streams = Streams()
    connection = Connection(path, hello, codec, streams)
    pack = NodePack(connection.welcome["pack"]["name"], connection.welcome["pack"]["folder"])
    inference = InferenceMode()
    worker = Worker(pack, inference)
    recovery = Recovery(pack, codec, lambda body: connection.send(EVENT, SERVER_PEER, 0, body))

    def stateful() -> int:
        # What can be had back does not keep a worker that nothing else needs.
        return 0 if recovery.is_offered else pack.stateful

    methods: dict[str, Method | Whole] = {
        "run": Whole(worker.run),
        "describe": worker.describe,
        "restore": recovery.restore,
    }
    entry = connection.welcome["pack"].get("entry")
    if entry is not None:
        context = EntryContext(pack.name, pack.folder, entry["settings"], lambda: host.pair, inference)
        methods.update(standard(entry["module"]).enter(context))
    host = HostLink(connection, streams, pack.name, methods, inference, stateful)

    def loaded() -> None:
        if recovery.is_offered:
            worker.on_run = lambda: host.executor.submit_next(recovery.keep)

    worker.on_loaded = loaded
    logs = LogForwarding(host.pair.emit)
    logs.begin()
    host.attach()
    connection.keep("airlock-keeper")
    die_with(connection.welcome["server"]["pid"] if parent is None else parent)
    try:
        host.executor.run()
    finally:
        logs.end()
        connection.close()
        streams.close()
        if lifeline is not None:
            lifeline.detach()
