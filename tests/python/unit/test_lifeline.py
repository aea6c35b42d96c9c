"""The lifeline ends a process, whatever it does, as soon as the other end of it closes."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[3] / "worker" / "src"
SECONDS_MAX = 20

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the lifeline is Linux's")

CHILD = f"""
import os, sys, time
os.dup2(int(sys.argv[1]), 3)
sys.path.insert(0, {str(SOURCE)!r})
from comfy_airlock.runtime.lifeline import hold
line = hold()
{{}}
print(os.fork() if sys.argv[2] == "fork" else 0, flush=True)
while True:
    time.sleep(1)
"""


def start(ours: socket.socket, theirs: socket.socket, doing: str = "", fork: str = "") -> subprocess.Popen[str]:
    del ours
    return subprocess.Popen(
        [sys.executable, "-I", "-c", CHILD.format(doing), str(theirs.fileno()), fork],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()], start_new_session=True, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("fork", ["", "fork"])
def test_process_and_its_children_end_when_the_other_end_closes(fork: str) -> None:
    ours, theirs = socket.socketpair()
    with start(ours, theirs, fork=fork) as child:
        theirs.close()
        assert child.stdout is not None
        child.stdout.readline()
        ours.close()
        assert child.wait(SECONDS_MAX) == -signal.SIGKILL
        # The pipe reads to its end only once every process that holds it is gone.
        child.stdout.read()


def test_process_that_ignores_signals_ends_too() -> None:
    ours, theirs = socket.socketpair()
    ignore = "import signal; [signal.signal(each, signal.SIG_IGN) for each in (1, 2, 15, signal.SIGIO)]"
    with start(ours, theirs, ignore) as child:
        theirs.close()
        assert child.stdout is not None
        child.stdout.readline()
        ours.close()
        assert child.wait(SECONDS_MAX) == -signal.SIGKILL


def test_process_whose_server_is_gone_already_never_gets_far() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    with start(ours, theirs) as child:
        theirs.close()
        assert child.stdout is not None
        assert child.stdout.read() == ""
        assert child.wait(SECONDS_MAX) == -signal.SIGKILL


PARENT = f"""
import os, subprocess, sys, time
sys.path.insert(0, {str(SOURCE)!r})
child = os.fork()
if child == 0:
    os.setsid()
    from comfy_airlock.runtime.lifeline import die_with
    die_with(os.getppid() if sys.argv[1] == "parent" else os.getpid())
    print("lives", flush=True)
    time.sleep({SECONDS_MAX})
    os._exit(0)
print("forked", flush=True)
time.sleep({SECONDS_MAX})
"""


def start_parent(whose: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-I", "-c", PARENT, whose]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def test_process_ends_with_its_parent_though_no_socket_tells() -> None:
    with start_parent("parent") as parent:
        assert parent.stdout is not None
        assert {parent.stdout.readline(), parent.stdout.readline()} == {"forked\n", "lives\n"}
        parent.kill()
        # As above: the child held the pipe.
        assert parent.stdout.read() == ""


def test_process_whose_parent_is_another_by_now_never_gets_far() -> None:
    with start_parent("stranger") as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "forked\n"
        parent.kill()
        assert parent.stdout.read() == ""
