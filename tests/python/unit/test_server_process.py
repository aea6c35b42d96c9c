"""A server of a host's own, against programs that stand in for it: started, waited for, and ended in every case."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from comfy_airlock.host import server_process
from comfy_airlock.host.server_process import ServerProcess
from comfy_airlock.wire.errors import Disconnected
from processes import SECONDS_MAX, is_running, until

SOURCE = Path(__file__).resolve().parents[3] / "worker" / "src"

WILLING = """
print(sys.argv[3], flush=True)
sys.stdin.read()
"""
STUBBORN = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(sys.argv[3], flush=True)
while True:
    time.sleep(1)
"""
SILENT = """
time.sleep(600)
"""
CHATTY = """
print("please wait", flush=True)
time.sleep(600)
"""
MUTE = """
os.close(1)
time.sleep(600)
"""
FAILING = """
sys.exit(3)
"""

Install = Callable[[str], Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Makes a program the ``airlock`` command. Returns where it writes its process id."""
    folders = tmp_path / "folders"
    folders.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folders))

    def make(body: str) -> Path:
        pid = tmp_path / "pid"
        command = tmp_path / "airlock"
        said = f"open({str(pid)!r}, 'w').write(str(os.getpid()))"
        command.write_text(f"#!{sys.executable} -I\nimport os, signal, sys, time\n{said}\n{body}")
        command.chmod(0o755)
        monkeypatch.setenv("AIRLOCK_BIN", str(command))
        return pid

    yield make
    assert list(folders.iterdir()) == []


def is_started_and_runs(pid: Path) -> bool:
    return pid.exists() and is_running(int(pid.read_text()))


def test_server_that_listens_is_ended_with_its_folder(install: Install) -> None:
    pid = install(WILLING)
    server = ServerProcess()
    assert is_started_and_runs(pid)
    assert os.path.isdir(os.path.dirname(server.socket_path))
    server.stop()
    server.stop()
    assert not is_started_and_runs(pid)


@pytest.mark.parametrize(
    ("body", "said"),
    [(SILENT, "it said nothing"), (CHATTY, "it said 'please wait'"), (MUTE, "it said nothing")],
    ids=["silent", "chatty", "mute"],
)
def test_server_that_does_not_come_up_in_time_is_ended(
    install: Install, monkeypatch: pytest.MonkeyPatch, body: str, said: str
) -> None:
    # Long enough for the program to have written its process id.
    monkeypatch.setattr(server_process, "_START_SECONDS_MAX", 1.0)
    monkeypatch.setattr(server_process, "_STOP_SECONDS_MAX", 0.1)
    pid = install(body)
    with pytest.raises(Disconnected, match=f"within 1 seconds: {said}") as caught:
        ServerProcess()
    assert caught.value.hint
    assert not is_started_and_runs(pid)


def test_server_that_fails_is_told_of_with_its_exit_code(install: Install) -> None:
    install(FAILING)
    with pytest.raises(Disconnected, match="exit code 3"):
        ServerProcess()


def test_server_that_ignores_everything_is_killed(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_process, "_STOP_SECONDS_MAX", 0.1)
    monkeypatch.setattr(server_process, "_TERMINATE_SECONDS_MAX", 0.1)
    pid = install(STUBBORN)
    ServerProcess().stop()
    assert not is_started_and_runs(pid)


def test_server_that_nobody_refers_to_is_ended(install: Install) -> None:
    pid = install(WILLING)
    server = ServerProcess()
    assert is_started_and_runs(pid)
    del server
    gc.collect()
    assert not is_started_and_runs(pid)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_forked_child_does_not_end_its_parents_server(install: Install) -> None:
    pid = install(WILLING)
    server = ServerProcess()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            server.stop()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert is_started_and_runs(pid)
    assert os.path.isdir(os.path.dirname(server.socket_path))
    server.stop()


HOST = f"""
import os, signal, sys, time
sys.path.insert(0, {str(SOURCE)!r})
from comfy_airlock.host.server_process import ServerProcess
server = ServerProcess()
folder = os.path.dirname(server.socket_path)
{{}}
"""
EXITS = """
print(os.path.isdir(folder))
"""
CHILD_EXITS = """
if os.fork() == 0:
    sys.exit()
os.wait()
print(os.path.isdir(folder), flush=True)
"""
CHILD_STAYS = """
child = os.fork()
if child == 0:
    time.sleep(600)
print(child, flush=True)
signal.pause()
"""


def start_host(body: str, folders: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", HOST.format(body)],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(folders)},
    )  # fmt: skip


@pytest.mark.parametrize("body", [EXITS, CHILD_EXITS], ids=["exits", "after a child exited"])
def test_host_that_exits_without_closing_ends_its_server_and_removes_the_folder(
    install: Install, tmp_path: Path, body: str
) -> None:
    pid = install(WILLING)
    with start_host(body, tmp_path / "folders") as host:
        said, _ = host.communicate(timeout=SECONDS_MAX)
    assert said == "True\n"
    assert not is_started_and_runs(pid)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_killed_hosts_server_ends_although_a_forked_child_lives(install: Install, tmp_path: Path) -> None:
    pid = install(WILLING)
    with start_host(CHILD_STAYS, tmp_path / "folders") as host:
        assert host.stdout is not None
        child = int(host.stdout.readline())
        try:
            host.kill()
            host.wait(SECONDS_MAX)
            until(lambda: not is_started_and_runs(pid))
            os.kill(child, 0)
        finally:
            os.kill(child, signal.SIGKILL)
    # Nobody was left to remove it.
    shutil.rmtree(next((tmp_path / "folders").iterdir()))
