"""A server that belongs to this process: found, started, and ended with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile

from comfy_airlock.wire.errors import Disconnected

_START_SECONDS_MAX = 30.0


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
        "no server is running, and there is no `airlock` on PATH to start one with",
        hint="install it with `npm install --global comfy-airlock`, or set AIRLOCK_BIN to its path",
    )


class ServerProcess:
    """A server in a folder of its own, reachable by whoever knows the path; ends when this process does.

    Its standard input is a pipe from here: the server ends when that closes, so even SIGKILL of this process ends it.
    """

    def __init__(self) -> None:
        """Starts the server and waits until it listens.

        Raises:
            Disconnected: there is no server to start, or it did not come up; with what it said.
        """
        command = find_airlock()
        self._folder = tempfile.mkdtemp(prefix="airlock-")
        self.socket_path = os.path.join(self._folder, "server.sock")
        try:
            self._process = subprocess.Popen(
                [command, "serve", "--socket", self.socket_path, "--until-stdin-closes", "--announce"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # Ctrl-C is for this process to act on; the server ends with it.
                start_new_session=True,
            )
            self._wait_until_listening(command)
        except BaseException:
            self.stop()
            raise

    def _wait_until_listening(self, command: str) -> None:
        """The server prints its socket's path once it listens, and closes its output where it can't."""
        assert self._process.stdout is not None
        announced = self._process.stdout.readline().decode(errors="replace").strip()
        if announced != self.socket_path:
            code = self._process.wait(timeout=_START_SECONDS_MAX)
            raise Disconnected(f"{command} could not start a server: exit code {code}", hint="what it said is above")

    def stop(self) -> None:
        """Ends the server, which ends its workers, and removes its folder. Safe to call twice."""
        process: subprocess.Popen[bytes] | None = getattr(self, "_process", None)
        if process is not None:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
            process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
