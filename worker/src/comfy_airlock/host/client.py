"""The host: connects to a server, opens packs, calls their nodes. Any thread, and any event loop, may do so at once."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple

from comfy_airlock.calls.event_handlers import EventHandler
from comfy_airlock.calls.pair import Pair
from comfy_airlock.calls.waiting import OnProgress
from comfy_airlock.host.lines import Lines
from comfy_airlock.host.pool import PackWorkers, Pools
from comfy_airlock.host.server_process import ServerProcess
from comfy_airlock.wire.address import check_socket_path, default_socket_path
from comfy_airlock.wire.codec import Codec
from comfy_airlock.wire.connection import Connection
from comfy_airlock.wire.event_names import check_event_name


class Progress(NamedTuple):
    """How a call goes that has more to do first, such as making an environment."""

    pack: str
    stage: str
    """waiting, interpreter, resolving, downloading, installing or ready; running, where the node itself tells."""
    message: str
    value: float | None = None
    """What is done of ``total``, where a node tells."""
    total: float | None = None


def connect(socket: str | None = None, *, name: str | None = None) -> Airlock:
    """Connects to a server: the one at ``socket`` or AIRLOCK_SOCKET, or else one of its own, ended with this process.

    Args:
        socket: path of the server's Unix socket.
        name: what this host calls itself in listings; the program's name by default.

    Raises:
        Disconnected: nobody listens there, or there is no ``airlock`` command (AIRLOCK_BIN, then PATH) to start.
        Unauthorized: the server is another user's.
        AirlockError: the server lets this process not in, and why.
    """
    if socket is not None:
        return Airlock(check_socket_path(socket), None, name)
    if os.environ.get("AIRLOCK_SOCKET"):
        return Airlock(default_socket_path(), None, name)
    server = ServerProcess()
    try:
        return Airlock(server.socket_path, server, name)
    except BaseException:
        server.stop()
        raise


class Airlock:
    """A connection to a server. Ends with :meth:`close` or the ``with`` block, and its workers with it."""

    def __init__(self, socket_path: str, server: ServerProcess | None, name: str | None) -> None:
        """Use :func:`connect`."""
        self._server = server
        hello = {
            "role": "host",
            "name": name or os.path.basename(sys.argv[0] or "python") or "python",
            "python": {"executable": sys.executable, "version": platform.python_version()},
        }
        self._connection = Connection(socket_path, hello, Codec())
        self._lines = Lines(self._connection)
        self._control = self._lines.server
        self._pools = Pools(self._lines)
        self._connection.attach(self._lines, self._connection.early)
        self._connection.keep("airlock-keeper")
        self.socket_path = socket_path

    def open(
        self,
        folder: str | os.PathLike[str],
        *,
        manifest: dict[str, Any] | None = None,
        entry: dict[str, str] | None = None,
    ) -> Pack:
        """Opens the pack in ``folder``: its manifest is checked, nothing is started.

        Args:
            manifest: in place of a file in the folder, with the keys of a pyisolate.yaml. A folder may be opened
                several times with manifests of different names, and is as many packs.
            entry: what the pack's workers run besides its nodes: the name of a ``module`` that they can import, and the
                ``settings``, a text, for it; see ``comfy_airlock.runtime.entry``.

        Raises:
            ManifestInvalid: the folder has no manifest, or a wrong one; with file, key and reason.
        """
        return self._opened(self._control.call("open", (), _open_parameters(folder, manifest, entry)))

    async def aopen(
        self,
        folder: str | os.PathLike[str],
        *,
        manifest: dict[str, Any] | None = None,
        entry: dict[str, str] | None = None,
    ) -> Pack:
        """As :meth:`open`, in a coroutine."""
        return self._opened(await self._control.acall("open", (), _open_parameters(folder, manifest, entry)))

    def _opened(self, answer: dict[str, Any]) -> Pack:
        workers = self._pools.workers_of(answer)
        warnings = tuple(answer["warnings"])
        return Pack(self._control, answer["pack"], workers, answer["name"], answer["folder"], warnings)

    def status(self) -> dict[str, Any]:
        """How the server is: its packs and their workers."""
        answer: dict[str, Any] = self._control.call("status", (), {})
        return answer

    def share(self, array: Any) -> Any:
        """A copy of a tensor or numpy array in memory that packs can map, for what is sent again and again.

        Sending an ordinary tensor copies its bytes each time; sending this one, or a view of it, copies none, to
        however many packs. It can be written to like any other: what packs were sent before doesn't change, and what
        was written to is copied when it is sent next. A pack with ``private_memory`` is sent a copy in any case.

        Returns:
            A tensor on the CPU, or an array, of the same dtype, shape and memory format.

        Raises:
            ValueUnsupported: it is no dense array of plain elements.
            LimitExceeded: there is no memory for it.
        """
        return self._lines.sharing.share(array, 0)

    def memory(self) -> dict[str, int]:
        """How much this host shares and holds; PROTOCOL.md, "Methods of a worker", explains the fields."""
        return self._lines.sharing.report()

    def collect(self) -> int:
        """Frees cycles across processes: objects of this host's that hold objects of a pack's, which hold those.

        They are looked for now and then in any case, while nothing is exchanged; to ask for it is like
        ``gc.collect()``, which this runs here and in the packs that may be on a cycle. A pack that is at work for
        longer than 2 s is left out, and so is one with which objects are exchanged meanwhile. Blocks until then: a
        coroutine asks on a thread (``asyncio.to_thread``). The objects are gone a moment later.

        Returns:
            How many references to packs' objects were given back: at least one for each cycle.
        """
        return self._lines.collector.collect()

    def close(self) -> None:
        """Ends the connection and this host's workers, and the server where it is this process's own."""
        self._connection.close()
        self._lines.close()
        if self._server is not None:
            self._server.stop()

    def __enter__(self) -> Airlock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class Pack:
    """A pack that this host has opened. A worker of its is started by a call that finds none.

    Attributes:
        name: the pack's name, from its manifest.
        folder: its folder, absolute.
        warnings: what its manifest asks for that is not carried out.
    """

    def __init__(
        self, server: Pair, peer: int, workers: PackWorkers, name: str, folder: str, warnings: tuple[str, ...]
    ) -> None:
        """Use :meth:`Airlock.open`."""
        self._server = server
        self._peer = peer
        self._workers = workers
        self._timeout: float | None = None
        self._on_progress: OnProgress | None = None
        self.name = name
        self.folder = folder
        self.warnings = warnings

    def __repr__(self) -> str:
        return f"<Pack {self.name} in {self.folder}>"

    @property
    def workers(self) -> PackWorkers:
        """For methods of its workers that are no nodes: those of an ``entry``."""
        return self._workers

    def options(self, *, timeout: float | None = None, on_progress: Callable[[Progress], None] | None = None) -> Pack:
        """The same pack, with options for the calls made through it.

        Args:
            timeout: seconds after which a call raises DeadlineExceeded; by default, and at most, the pack's
                ``call_timeout``.
            on_progress: told how a call goes, in the calling thread or on the awaiting event loop; of what it does not
                get to, the newest is kept. The first exception that it raises is raised by the call, once that was
                answered.
        """
        pack = Pack(self._server, self._peer, self._workers, self.name, self.folder, self.warnings)
        pack._timeout = self._timeout if timeout is None else timeout
        pack._on_progress = self._on_progress if on_progress is None else _listening(on_progress)
        return pack

    def call(self, node: str, /, **inputs: Any) -> Any:
        """Calls a node with its inputs and returns what its function returned: of a V1 node, the tuple of its outputs.

        Raises:
            NodeNotFound: the pack has no such node; names those that it has.
            WorkerDied: the worker's process ended, be it by a node that raised SystemExit; the next call starts a fresh
                one.
            DeadlineExceeded, EnvironmentFailed, ValueUnsupported, LimitExceeded, Disconnected: as they say.
            Exception: whatever the node raised, with the remote traceback as its cause. Never what would end this
                process, such as KeyboardInterrupt: a RemoteError of that name.
        """
        return self._workers.call("run", (node,), inputs, self._timeout, self._on_progress)

    async def acall(self, node: str, /, **inputs: Any) -> Any:
        """As :meth:`call`, in a coroutine; cancelling it cancels the call."""
        return await self._workers.acall("run", (node,), inputs, self._timeout, self._on_progress)

    def describe(self) -> dict[str, Any]:
        """What a worker tells of itself and of its nodes; PROTOCOL.md, "Methods of a worker", has the fields."""
        answer: dict[str, Any] = self._workers.call("describe", (), {}, self._timeout, self._on_progress)
        return answer

    def prepare(self) -> dict[str, Any]:
        """Makes the pack's environment, where that was not done yet. A first call does so too."""
        parameters = {"pack": self._peer}
        answer: dict[str, Any] = self._server.call("prepare", (), parameters, self._timeout, self._on_progress)
        return answer

    def emit(self, name: str, value: Any = None) -> None:
        """Sends an event to the pack's workers, which handle it by ``comfy_airlock.on``; lost where none runs."""
        self._workers.emit(check_event_name(name), value)

    def on(self, name: str, handler: EventHandler | None) -> None:
        """Has the pack's events of this name handled, one after the other on a thread for that; None ends that."""
        self._workers.on(check_event_name(name), handler)

    def close(self) -> None:
        """Ends the pack's workers. Opening the folder again gives fresh ones."""
        self._server.call("close", (), {"pack": self._peer})


def _open_parameters(
    folder: str | os.PathLike[str], manifest: dict[str, Any] | None, entry: dict[str, str] | None
) -> dict[str, Any]:
    given = {"manifest": manifest, "entry": entry}
    return {"folder": os.path.abspath(folder), **{name: item for name, item in given.items() if item is not None}}


def _listening(listener: Callable[[Progress], None]) -> OnProgress:
    return lambda said: listener(
        Progress(said["pack"], said["stage"], said["message"], said.get("value"), said.get("total"))
    )
