"""Whether and how one connection shares memory: opened when a first array is sent or comes that is worth it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakMethod

from comfy_airlock.calls.releases import process_releases
from comfy_airlock.wire.connection import SEGMENTS, Connection
from comfy_airlock.wire.frame import Cargo
from comfy_airlock.wire.optional import standard

if TYPE_CHECKING:
    from comfy_airlock.calls.pair import Pair, Route
    from comfy_airlock.memory.leases import Leases
    from comfy_airlock.memory.memory import Memory

_SERVER_SECONDS: Final = 30.0
"""How long the server may take to pass a segment."""

SEGMENT_GONE: Final = "segment_gone"
"""The event by which the server tells that a segment is no more."""


class Sharing:
    """One connection's."""

    def __init__(self, connection: Connection, server: Callable[[], Pair]) -> None:
        """
        Args:
            server: gives the pair with the server, by which segments are asked for.
        """
        self._connection = connection
        self._server = server
        self._mutex = threading.Lock()
        self._memory: Memory | None = None
        self._leases: dict[int, Leases] = {}

    @property
    def memory(self) -> Memory | None:
        """What is shared, if anything was."""
        return self._memory

    def open(self) -> Memory | None:
        """What is shared, from now on; None where this peer can take no segments."""
        lane = self._connection.lane
        if lane is None or SEGMENTS not in self._connection.welcome["features"]:
            return None
        with self._mutex:
            if self._memory is None:
                process_releases.start()
                memory: Memory = standard("comfy_airlock.memory.memory").Memory(
                    lane, self._ask, self._wake, self._wake_later
                )
                self._memory = memory
            return self._memory

    def share(self, array: Any, audience: int | None) -> Any:
        """As :meth:`Memory.share`; the array itself where no memory is shared."""
        memory = self.open()
        return array if memory is None else memory.share(array, audience)

    def leases(self, peer: int, audience: Callable[[], int | None], name: str, route: Callable[[], Route]) -> Any:
        """The leases with another peer; None where no memory is shared."""
        memory = self.open()
        if memory is None:
            return None
        with self._mutex:
            leases = self._leases.get(peer)
            if leases is None:
                make = standard("comfy_airlock.memory.leases").Leases
                leases = self._leases[peer] = make(memory, peer, audience, name, partial(_send, route))
            return leases

    def _ask(self, method: str, **keywords: Any) -> Any:
        # On behalf of no call: one that is cancelled would leave half a segment behind.
        return Context().run(self._server().call, method, (), keywords, _SERVER_SECONDS)

    def _wake(self) -> None:
        process_releases.poke(self._tidy)

    def _wake_later(self, seconds: float) -> None:
        process_releases.later(seconds, WeakMethod(self._retire_old))

    def _retire_old(self) -> None:
        if self._memory is not None:
            self._memory.heap.retire_old()

    def _tidy(self) -> None:
        if self._memory is not None:
            self._memory.tidy()

    def report(self) -> dict[str, int]:
        """As :meth:`Memory.report`; empty where nothing was shared yet."""
        return {} if self._memory is None else self._memory.report()

    def told(self, name: str, said: Any) -> None:
        """An event of the server's own. Called on the thread that reads."""
        if name == SEGMENT_GONE and self._memory is not None and isinstance(said, dict):
            self._memory.gone(said.get("segment", 0))

    def close(self) -> None:
        """The connection has ended."""
        if self._memory is not None:
            self._memory.close()


def _send(route: Callable[[], Route], kind: int, attachments: bytes) -> None:
    channel, peer = route()
    channel.send(kind, peer, 0, cargo=Cargo(attachments=attachments))
