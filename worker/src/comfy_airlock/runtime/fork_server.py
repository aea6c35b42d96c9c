"""A process that has imported torch, and forks into workers: each has torch in milliseconds, in pages that all share.

The server starts one for each torch that packs share, on the interpreter that their environments are made of and in an
environment that is empty: it has the standard library, torch, and what torch imports by itself. It runs no operation of
torch's, as threads, pools and a CUDA context would not survive a fork.

Requests are JSON, one in each message on descriptor 4. One for a worker brings a descriptor, and two messages more with
one each. What is said goes to descriptor 5, a line each. Twin of ``src/server/workers/fork-server.ts``.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import sys
import warnings
from typing import Any, Final

_ROOT: Final = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# As in boot.py: modules of this script's folder would shadow others of their name.
sys.path[0] = _ROOT

from comfy_airlock.runtime.forked import (  # noqa: E402 - found from here on.
    Start,
    become,
    environment_entries,
    leave,
    loaded_modules,
    modules_to_unload,
)
from comfy_airlock.runtime.lifeline import hold  # noqa: E402
from comfy_airlock.runtime.shared_torch import share_torch  # noqa: E402

_REQUESTS: Final = 4
_SAID: Final = 5
_REQUEST_BYTES_MAX: Final = 1 << 20


class ForkServer:
    """The parent: answers requests, and tells which of its children have ended.

    Invariant: as long as this process lives, a child's number is nobody else's until the server has said that it may
    be: it ends the child's process group by that number first.
    """

    def __init__(self) -> None:
        self._requests = socket.socket(fileno=_REQUESTS)
        self._poll = select.poll()
        self._poll.register(_REQUESTS, select.POLLIN)
        self._loaded = loaded_modules()
        # By descriptors that are readable when they have ended.
        self._children: dict[int, int] = {}

    def serve(self) -> tuple[Start, list[str]] | None:
        """Returns in a child, with what :func:`become` takes; in the parent when the server is gone."""
        _say({"ready": True})
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor != _REQUESTS:
                    self._ended(descriptor)
                    continue
                data, descriptors, _, _ = socket.recv_fds(self._requests, _REQUEST_BYTES_MAX, 1)
                if not data:
                    return None
                request: dict[str, Any] = json.loads(data)
                if "reap" in request:
                    os.waitpid(request["reap"], 0)
                    _say({"reaped": request["reap"]})
                    continue
                for _ in range(2):
                    descriptors += socket.recv_fds(self._requests, _REQUEST_BYTES_MAX, 1)[1]
                forked = self._fork(request, descriptors)
                if forked is not None:
                    return forked

    def _fork(self, request: dict[str, Any], descriptors: list[int]) -> tuple[Start, list[str]] | None:
        """Returns in the child what that is to become."""
        try:
            start = Start(**request, **dict(zip(("output", "lifeline", "stacks"), descriptors, strict=True)))
            unloaded = modules_to_unload(environment_entries(start.python), self._loaded)
            if self._is_child():
                return start, unloaded
        except Exception as error:  # noqa: BLE001 - whatever it is, the server starts this worker some other way.
            _say({"refused": f"{type(error).__name__}: {error}"})
        for descriptor in descriptors:
            os.close(descriptor)
        return None

    def _is_child(self) -> bool:
        """Forks; says the child's number once it is the leader of a session, as it is ended by its group."""
        seen, shown = os.pipe()
        try:
            with warnings.catch_warnings():
                # Python 3.12 and later warn of threads: there are OpenBLAS's, which it keeps out of children itself.
                warnings.simplefilter("ignore", DeprecationWarning)
                pid = os.fork()
            if pid == 0:
                self._leave()
                return True
        finally:
            # The child's copy is closed by then, and what is read here ends.
            os.close(shown)
            os.read(seen, 1)
            os.close(seen)
        try:
            descriptor = os.pidfd_open(pid)
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        self._children[descriptor] = pid
        self._poll.register(descriptor, select.POLLIN)
        _say({"pid": pid})
        return False

    def _leave(self) -> None:
        """In the child: it is none of the parent's from here on, and never goes on as if it was."""
        try:
            os.setsid()
            self._requests.close()
            for descriptor in (_SAID, *self._children):
                os.close(descriptor)
        except BaseException:  # noqa: BLE001 - whatever it is, the parent's stack is not to be unwound here.
            os._exit(1)

    def _ended(self, descriptor: int) -> None:
        pid = self._children.pop(descriptor)
        self._poll.unregister(descriptor)
        os.close(descriptor)
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        _say({"exited": pid, "code" if ended.si_code == os.CLD_EXITED else "signal": ended.si_status})


def _say(what: dict[str, Any]) -> None:
    os.write(_SAID, json.dumps(what).encode() + b"\n")


def main() -> None:
    """Imports torch, and forks; a child goes on as a worker."""
    lifeline = hold()
    try:
        # Python builds and kernels that are older have none, and without it there is no forking.
        os.close(os.pidfd_open(os.getpid()))
        share_torch(os.environ["AIRLOCK_SHARED_TORCH"])
        __import__("torch")
    except BaseException as error:
        _say({"failed": f"{type(error).__name__}: {error}"})
        raise
    gc.collect()
    # A collection in a child would write to the pages of all that there is by now, and so copy them.
    gc.freeze()
    parent = os.getpid()
    forked = ForkServer().serve()
    if forked is None:
        return
    if lifeline is not None:
        # Its number is taken by the child's own.
        lifeline.detach()
    become(*forked)(parent)
    leave()


if __name__ == "__main__":
    main()
