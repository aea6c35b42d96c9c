"""What a process holds for itself alone is closed in the children that it forks, and nowhere else."""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from comfy_airlock.wire.forking import HeldDescriptors
from scripted_server import Peer, ScriptedServer

SOURCE = Path(__file__).resolve().parents[3] / "worker" / "src"
SECONDS_MAX = 20

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def closed_in_child(descriptor: int) -> bool:
    """Whether a child that is forked now finds it closed."""
    child = os.fork()
    if child == 0:
        try:
            os.fstat(descriptor)
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


def test_held_descriptor_is_closed_in_a_child_and_stays_open_here() -> None:
    held = HeldDescriptors()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        held.add(ours)
        assert closed_in_child(ours.fileno())
        assert not closed_in_child(theirs.fileno())
        ours.send(b"x")
        assert theirs.recv(1) == b"x"


def test_one_that_cannot_be_closed_keeps_no_other_open() -> None:
    class Stuck:
        def close(self) -> None:
            raise OSError("stuck")

    held = HeldDescriptors()
    stuck = [Stuck() for _ in range(4)]
    pairs = [socket.socketpair() for _ in range(4)]
    for each, (ours, _) in zip(stuck, pairs, strict=True):
        held.add(each)
        held.add(ours)
    with pytest.raises(OSError, match="stuck"):
        held._close()
    assert all(ours.fileno() < 0 for ours, _ in pairs)
    for _, theirs in pairs:
        theirs.close()


def test_number_of_a_descriptor_that_was_closed_may_be_anothers() -> None:
    held = HeldDescriptors()
    ours, theirs = socket.socketpair()
    held.add(ours)
    number = ours.fileno()
    ours.close()
    with theirs:
        again = os.dup(theirs.fileno())
        assert again == number
        assert not closed_in_child(again)
        os.close(again)


def test_what_nobody_refers_to_is_forgotten() -> None:
    held = HeldDescriptors()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        held.add(ours)
    del ours
    gc.collect()
    assert len(held._held) == 0


CLIENT = f"""
import os, signal, sys, time
sys.path.insert(0, {str(SOURCE)!r})
from comfy_airlock.wire.codec import Codec
from comfy_airlock.wire.connection import Connection
connection = Connection(sys.argv[1], {{"role": "worker"}}, Codec())
child = os.fork()
if child == 0:
    time.sleep(600)
print(child, flush=True)
signal.pause()
"""


def test_connection_ends_with_its_process_although_a_child_lives(tmp_path: Path) -> None:
    ended: list[bytes] = []

    def script(peer: Peer) -> None:
        peer.welcome()
        ended.append(peer.read_bytes(1))

    with ScriptedServer(tmp_path, script) as server:
        with subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", CLIENT, server.path], stdout=subprocess.PIPE, text=True
        ) as client:
            assert client.stdout is not None
            child = int(client.stdout.readline())
            try:
                client.kill()
                server.join(SECONDS_MAX)
                os.kill(child, 0)
            finally:
                os.kill(child, signal.SIGKILL)
    assert ended == [b""]
