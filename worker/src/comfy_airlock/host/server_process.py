"""A server that belongs to this process: found, started, and ended with it."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import tempfile
import time
from typing import Final
from weakref import finalize

from comfy_airlock.wire.errors import Disconnected
from comfy_airlock.wire.forking import held_by_this_process

_START_SECONDS_MAX: Final = 30.0
"""From starting the server until it listens."""
_STOP_SECONDS_MAX: Final = 20.0
"""From asking the server to end until it has: it gives running calls 10 seconds."""
_TERMINATE_SECONDS_MAX: Final = 5.0
"""From SIGTERM to a server that did not end by itself, until SIGKILL."""
_READ_BYTES: Final = 4096


def find_airlock() -> str:
    """The ``airlock`` command: AIRLOCK_BIN, then PATH.

    Raises:
        Disconnected: there is none; says how to get one.
    """
    override = os.environ.get("AIRLOCK_BIN")
    if override:
        if os.access(override, os.X_OK):
            return override
        raise Disconnected(f"AIRLOCK_BIN names {override}, which is not a program", hint="unset it, or correct it")
    found = shutil.which("airlock")
    if found is not None:
        return found
    raise Disconnected(
        "AIRLOCK_SOCKET names no server to join, and there is no `airlock` on PATH to start one with",
        hint="install comfy-airlock with npm, or set AIRLOCK_BIN to the path of its bin/airlock.mjs; or set "
        "AIRLOCK_SOCKET to the path that a running `airlock serve` prints",
    )


class ServerProcess:
    """A server in a folder of its own, reachable by whoever knows the path; ends when this process does.

    Its standard input is a pipe from here: the server ends when that closes, so even SIGKILL of this process ends it.
    Children that this process forks neither keep that pipe open nor end the server: it is their parent's.
    """

    def __init__(self) -> None:
        """Starts the server and waits until it listens.

        Raises:
            Disconnected: there is no server to start, or it did not come up; with what it said.
        """
        command = find_airlock()
        folder = tempfile.mkdtemp(prefix="airlock-")
        self.socket_path = os.path.join(folder, "server.sock")
        try:
            process = _start(command, self.socket_path)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        # Called once: by stop(), or when this object is no longer referred to, or else as the interpreter exits.
        self._finalizer = finalize(self, _end, process, folder, os.getpid())
        try:
            _wait_until_listening(process, command, self.socket_path)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends the server, which ends its workers, and removes its folder. Safe to call twice, and in a forked child,
        where it does nothing.

        Blocks while the server gives running calls time to finish; one that hangs is killed after 25 seconds.
        """
        self._finalizer()


def _start(command: str, socket_path: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [command, "serve", "--socket", socket_path, "--until-stdin-closes", "--announce"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # Nothing is to wait in a buffer, and no buffer's lock to be held while this process forks.
        bufsize=0,
        # Ctrl-C is for this process to act on; the server ends with it.
        start_new_session=True,
    )
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        held_by_this_process.add(pipe)
    return process


def _wait_until_listening(process: subprocess.Popen[bytes], command: str, socket_path: str) -> None:
    """The server prints its socket's path once it listens, and closes its output where it can't."""
    deadline = time.monotonic() + _START_SECONDS_MAX
    announced = _read_line(process, deadline)
    if announced == socket_path:
        return
    try:
        code = process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        said = f"it said {announced!r}" if announced else "it said nothing"
        raise Disconnected(
            f"{command} did not start a server within {_START_SECONDS_MAX:.0f} seconds: {said}",
            hint="run `airlock serve` to see what it waits for",
        ) from None
    raise Disconnected(f"{command} could not start a server: exit code {code}", hint="what it said is above")


def _read_line(process: subprocess.Popen[bytes], deadline: float) -> str:
    """The first line of the process's output, as far as it came by ``deadline`` (of the monotonic clock)."""
    assert process.stdout is not None
    line = bytearray()
    # select.select fails on descriptors over 1023, and a host may well have that many.
    poller = select.poll()
    poller.register(process.stdout, select.POLLIN)
    while b"\n" not in line and poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
        read = os.read(process.stdout.fileno(), _READ_BYTES)
        if not read:
            break
        line += read
    return line.partition(b"\n")[0].decode(errors="replace").strip()


def _end(process: subprocess.Popen[bytes], folder: str, owner: int) -> None:
    if os.getpid() != owner:
        return
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    try:
        _wait_until_ended(process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_ended(process: subprocess.Popen[bytes]) -> None:
    for give_up, seconds in ((process.terminate, _STOP_SECONDS_MAX), (process.kill, _TERMINATE_SECONDS_MAX)):
        try:
            process.wait(seconds)
            return
        except subprocess.TimeoutExpired:
            give_up()
    process.wait()
