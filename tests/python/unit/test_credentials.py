"""A client tells its name only to a server of its own user, or of root's."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfy_airlock import connect
from comfy_airlock.wire.credentials import check_server
from comfy_airlock.wire.errors import Unauthorized
from scripted_server import Peer, ScriptedServer

NOBODY = 65534

pytestmark = pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason="this system does not tell who connects")


def kernel_says(monkeypatch: pytest.MonkeyPatch, uid: int) -> None:
    monkeypatch.setattr(socket.socket, "getsockopt", lambda *_: struct.pack("=iII", 77, uid, 0))


@pytest.fixture
def connection() -> Iterator[socket.socket]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours


def test_server_of_another_user_hears_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[bytes] = []

    def script(peer: Peer) -> None:
        heard.append(peer.read_bytes(1))

    kernel_says(monkeypatch, NOBODY)
    with ScriptedServer(tmp_path, script) as server:
        with pytest.raises(Unauthorized, match=f"{server.path} is user {NOBODY}'s") as caught:
            connect(server.path)
    assert caught.value.code == "unauthorized"
    assert caught.value.hint
    assert heard == [b""]


@pytest.mark.parametrize("uid", [0, os.geteuid()])
def test_server_of_this_user_or_of_root_passes(
    connection: socket.socket, monkeypatch: pytest.MonkeyPatch, uid: int
) -> None:
    check_server(connection, "/path")
    kernel_says(monkeypatch, uid)
    check_server(connection, "/path")


def test_system_that_does_not_tell_is_not_asked(connection: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel_says(monkeypatch, NOBODY)
    monkeypatch.delattr(socket, "SO_PEERCRED")
    check_server(connection, "/path")


LISTENER = f"""
import os, socket, sys
os.setuid({NOBODY})
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o777)
listener.listen()
print("listening", flush=True)
print(listener.accept()[0].recv(1), flush=True)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user too")
def test_kernel_knows_the_other_user() -> None:
    # pytest's own folders are root's alone.
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        path = os.path.join(folder, "s")
        listener = subprocess.Popen([sys.executable, "-c", LISTENER, path], stdout=subprocess.PIPE, text=True)
        with listener:
            assert listener.stdout is not None
            listener.stdout.readline()
            with pytest.raises(Unauthorized, match=f"user {NOBODY}'s"):
                connect(path)
            assert listener.stdout.read() == "b''\n"
