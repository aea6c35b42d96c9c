"""A Python host against a real server and real workers."""

from __future__ import annotations

import asyncio
import datetime
import decimal
import fractions
import os
import shutil
import signal
import subprocess
import sys
import threading
import uuid
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import numpy
import pytest

from comfy_airlock import (
    Airlock,
    DeadlineExceeded,
    Disconnected,
    Opaque,
    Pack,
    Progress,
    RemoteError,
    ValueUnsupported,
    WorkerDied,
    connect,
)
from comfy_airlock.wire.errors import LimitExceeded, ManifestInvalid, NodeNotFound, RemoteTraceback
from comfy_airlock.wire.limits import FRAME_BYTES_MAX
from processes import is_running, until

from .conftest import PACKS, ROOT

VALUES: list[Any] = [
    None,
    True,
    0,
    -(2**63),
    2**64 - 1,
    2**64,
    -(2**80),
    1.0,
    float("inf"),
    "",
    "ünïcødé 🖼",
    b"\x00\xff",
    [],
    [1, [2, (3,)]],
    (),
    (1, "two", (3.0,)),
    {"a": {"b": ()}},
    {1: "int", (1, 2): "tuple", None: "none", 1.5: "float"},
    {1, 2},
    frozenset({"x"}),
    1 - 2j,
    datetime.datetime(2026, 1, 2, 3, 4, 5, 678),
    datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=5, minutes=45))),
    datetime.date(2026, 1, 2),
    datetime.time(3, 4, 5),
    datetime.timedelta(days=-1, microseconds=1),
    Path("/a/b"),
    PurePosixPath("c"),
    uuid.UUID(int=7),
    decimal.Decimal("1.10"),
    fractions.Fraction(1, 3),
    OrderedDict([("z", 1), ("a", 2)]),
    range(1, 10, 2),
    slice(None, 5),
    ...,
    ValueError("an exception as a value"),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_comes_back_as_what_it_was(probe: Pack, value: Any) -> None:
    (back,) = probe.call("Echo", value=value)
    assert type(back) is type(value)
    assert repr(back) == repr(value)


def test_inputs_may_have_any_name(probe: Pack) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'self_'"):
        probe.call("Echo", self_=1)
    with pytest.raises(TypeError, match="multiple values for argument 'self'"):
        probe.call("Echo", self=1, node=2, node_name=3)


def test_an_exception_arrives_as_its_own_type_with_the_remote_traceback(probe: Pack) -> None:
    with pytest.raises(KeyError) as caught:
        probe.call("Raise", message="missing")
    assert caught.value.args == ("missing",)
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert "raise KeyError(message)" in str(caught.value.__cause__)


def test_an_exception_of_the_packs_own_is_caught_by_its_base(probe: Pack) -> None:
    with pytest.raises(ValueError, match="boom") as caught:
        probe.call("Raise", message="boom", own=True)
    assert isinstance(caught.value, RemoteError)
    assert type(caught.value).__name__ == "ProbeError"
    assert caught.value.args == ("boom", 7)


def test_a_type_that_only_the_pack_has_passes_through_the_host(probe: Pack) -> None:
    (mesh,) = probe.call("MakeMesh")
    assert isinstance(mesh, Opaque)
    assert probe.call("CountVertices", mesh=mesh) == (3,)


def test_what_cannot_be_sent_is_named_and_nothing_is_sent(probe: Pack) -> None:
    with pytest.raises(ValueUnsupported, match=r"value\[2\]\['value'\]\[0\].*builtins\.module"):
        probe.call("Echo", value=[os])
    assert probe.call("Echo", value=1) == (1,)


def test_what_is_too_large_for_a_message_fails_its_call_and_nothing_else(probe: Pack) -> None:
    worker = probe.describe()["pid"]
    with pytest.raises(LimitExceeded, match=f"limit of {FRAME_BYTES_MAX} bytes") as caught:
        probe.call("Blanks", count=FRAME_BYTES_MAX)
    assert caught.value.pack == "probe"
    with pytest.raises(LimitExceeded, match=f"limit of {FRAME_BYTES_MAX} bytes"):
        probe.call("Echo", value=FRAME_BYTES_MAX * "x")
    assert probe.call("Blanks", count=3) == ("   ",)
    assert probe.describe()["pid"] == worker


def test_errors_say_what_to_do(airlock: Airlock, probe: Pack, tmp_path: Path) -> None:
    with pytest.raises(NodeNotFound, match="Echo"):
        probe.call("Ekho")
    with pytest.raises(ManifestInvalid, match=str(tmp_path)):
        airlock.open(tmp_path)


def test_a_deadline_ends_the_wait(probe: Pack) -> None:
    probe.describe()
    with pytest.raises(DeadlineExceeded) as caught:
        probe.options(timeout=0.05).call("AsyncEcho", seconds=30)
    assert isinstance(caught.value, TimeoutError)
    assert probe.call("Echo", value=1) == (1,)


def test_a_dead_worker_is_an_error_and_then_a_fresh_one(probe: Pack) -> None:
    before = probe.describe()["pid"]
    with pytest.raises(WorkerDied, match="SIGKILL") as caught:
        probe.call("End", how="SIGKILL")
    assert caught.value.pack == "probe"
    assert "about to end by SIGKILL" in (caught.value.log or "")
    assert probe.describe()["pid"] != before


def test_a_crashed_workers_python_stack_is_told(probe: Pack) -> None:
    with pytest.raises(WorkerDied, match="SIGSEGV") as caught:
        probe.call("End", how="fault")
    stack = caught.value.stack or ""
    assert stack.startswith("Fatal Python error: Segmentation fault\n\nCurrent thread ")
    assert 'nodes.py", line' in stack
    assert stack in str(caught.value)
    assert "Fatal Python error" not in (caught.value.log or "")
    # It is shared: the tests that follow find its worker there.
    probe.describe()


def test_threads_share_a_connection(probe: Pack) -> None:
    def many(base: int) -> list[int]:
        return [probe.call("Echo", value=base + index)[0] for index in range(50)]

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(many, range(0, 800, 100)))
    assert results == [list(range(base, base + 50)) for base in range(0, 800, 100)]


def test_event_loops_share_a_connection_with_threads(probe: Pack) -> None:
    async def many() -> list[int]:
        return [out[0] for out in await asyncio.gather(*(probe.acall("Echo", value=index) for index in range(50)))]

    results: list[list[int]] = []
    threads = [threading.Thread(target=lambda: results.append(asyncio.run(many()))) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert probe.call("Echo", value="here too") == ("here too",)
    for thread in threads:
        thread.join()
    assert results == [list(range(50))] * 3


def test_cancelling_a_coroutine_cancels_the_call(airlock: Airlock, probe: Pack) -> None:
    async def give_up() -> None:
        call = asyncio.create_task(probe.acall("AsyncEcho", seconds=30))
        await asyncio.sleep(0.1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    probe.describe()
    asyncio.run(give_up())
    assert probe.call("Echo", value="still there") == ("still there",)
    # The host is told at once; the worker answers the cancel in its own time.
    until(lambda: calls_under_way(airlock, "probe") == 0)


def calls_under_way(airlock: Airlock, pack: str) -> int:
    (worker,) = [each["workers"][0] for each in airlock.status()["packs"] if each["name"] == pack]
    return int(worker["calls"])


def test_a_loop_that_closes_during_a_call_harms_nobody(probe: Pack) -> None:
    loop = asyncio.new_event_loop()
    call = loop.create_task(probe.acall("AsyncEcho", seconds=0.2))
    loop.run_until_complete(asyncio.sleep(0.05))
    call.cancel()
    loop.run_until_complete(asyncio.gather(call, return_exceptions=True))
    loop.close()
    assert probe.call("AsyncEcho", value="after", seconds=0.3) == ("after",)


def test_a_forked_child_is_told_to_connect_for_itself(probe: Pack) -> None:
    probe.describe()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            probe.call("Echo")
        except Disconnected as error:
            os.write(write, str(error).encode())
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read, "rb") as said:
        assert b"forked" in said.read()
    assert probe.call("Echo", value="parent") == ("parent",)


def test_a_child_that_a_worker_forks_holds_no_connection(probe: Pack) -> None:
    sockets, inherited = probe.call("ForkedSockets")
    # All but connection, descriptor lane and the line's two ends: the lifeline is what ends the child with the server.
    assert inherited
    assert len(set(sockets) - set(inherited)) == 4


HOST = f"""
import os, signal, sys, time
sys.path.insert(0, {str(ROOT / "worker" / "src")!r})
from comfy_airlock import connect
airlock = connect()
worker = airlock.open({str(PACKS / "probe")!r}).describe()["pid"]
child = os.fork()
if child == 0:
    time.sleep(600)
print(child, worker, airlock.status()["server"]["pid"], airlock.socket_path, flush=True)
signal.pause()
"""


def test_server_and_worker_of_a_killed_host_end_although_a_child_that_it_forked_lives() -> None:
    with subprocess.Popen([sys.executable, "-W", "ignore", "-c", HOST], stdout=subprocess.PIPE, text=True) as host:
        assert host.stdout is not None
        child, worker, server, path = host.stdout.readline().split()
        try:
            host.kill()
            until(lambda: not is_running(int(server)) and not is_running(int(worker)))
            assert is_running(int(child))
        finally:
            os.kill(int(child), signal.SIGKILL)
    shutil.rmtree(os.path.dirname(path), ignore_errors=True)


def test_progress_of_an_environment_is_told(airlock: Airlock) -> None:
    told: list[Progress] = []
    airlock.open(PACKS / "no-mappings").options(on_progress=told.append).prepare()
    assert told[-1].pack == "no-mappings"
    assert told[-1].stage == "ready"


def test_a_server_of_its_own_ends_with_the_block() -> None:
    with connect() as own:
        path = own.socket_path
        assert os.path.exists(path)
        worker = own.open(PACKS / "probe").describe()["pid"]
    assert not os.path.exists(os.path.dirname(path))
    until(lambda: not is_running(worker))
    with pytest.raises(Disconnected):
        connect(path)


def test_no_airlock_command_is_an_error_that_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRLOCK_BIN")
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(Disconnected, match="install comfy-airlock with npm"):
        connect()
    monkeypatch.setenv("AIRLOCK_BIN", "/nonexistent/airlock")
    with pytest.raises(Disconnected, match="AIRLOCK_BIN"):
        connect()


def test_an_image_goes_to_another_numpy_and_back(arrays: Pack) -> None:
    image = numpy.random.default_rng(7).random((1, 64, 48, 3), dtype=numpy.float32)
    inverted, seen = arrays.call("Invert", image=image)
    assert seen.startswith("numpy ")
    assert seen != f"numpy {numpy.__version__}"
    assert numpy.array_equal(numpy.asarray(inverted), 1.0 - image)


@pytest.mark.parametrize(
    "array",
    [
        numpy.arange(6).reshape(2, 3)[:, ::-1],
        numpy.asfortranarray(numpy.arange(6.0).reshape(2, 3)),
        numpy.array([("a", 1.5)], dtype=[("name", "U4"), ("size", ">f4")]),
        numpy.array(["2026-01-01"], dtype="M8[D]"),
        numpy.float32(1.5),
        numpy.zeros((0, 4), dtype=numpy.uint8),
    ],
    ids=["negative strides", "F order", "structured", "datetime64", "scalar", "empty"],
)
def test_an_array_keeps_its_element_type_and_shape_across_versions_of_numpy(arrays: Pack, array: Any) -> None:
    back, seen = arrays.call("Echo", value=array)
    assert seen.endswith(str(array.dtype))
    assert type(back) is type(array)
    assert back.dtype == array.dtype
    assert numpy.array_equal(back, array)


def test_what_a_node_is_given_it_may_write_to_and_the_hosts_stays(arrays: Pack) -> None:
    array = numpy.ones(4)
    (edited,) = arrays.call("EditInPlace", value=array)
    assert edited.tolist() == [7.0] * 4
    assert array.tolist() == [1.0] * 4


def _greedy_pack(airlock: Airlock, folder: Path, limits: str) -> Pack:
    """A copy of the greedy pack with these limits, each a line of TOML."""
    copy = folder / "greedy"
    shutil.copytree(PACKS / "greedy", copy)
    with (copy / "pyproject.toml").open("a") as manifest:
        manifest.write(f"[tool.comfy.isolation.limits]\n{limits}\n")
    return airlock.open(copy)


def test_call_timeout_of_a_pack_holds_threads_and_tasks_and_gives_way_to_a_shorter_one(
    airlock: Airlock, tmp_path: Path
) -> None:
    pack = _greedy_pack(airlock, tmp_path, "call_timeout = 1")
    pack.describe()
    where = f"tool.comfy.isolation.limits.call_timeout in {pack.folder}/pyproject.toml"
    said = f"pack greedy: the call took longer than the pack's limit of 1000 ms ({where})"
    for held in (pack, pack.options(timeout=60)):
        with pytest.raises(DeadlineExceeded) as caught:
            held.call("Sleep", seconds=2)
        assert (caught.value.message, caught.value.hint) == (
            said,
            f"raise {where}; a worker that goes on for 10 s more is ended",
        )
    with pytest.raises(DeadlineExceeded, match="the pack's limit of 1000 ms"):
        asyncio.run(pack.acall("Sleep", seconds=2))
    with pytest.raises(DeadlineExceeded, match="its deadline of 100 ms"):
        pack.options(timeout=0.1).call("Sleep", seconds=2)
    pack.close()


def test_worker_over_its_memory_says_so_and_the_next_call_has_a_fresh_one(airlock: Airlock, tmp_path: Path) -> None:
    pack = _greedy_pack(airlock, tmp_path, 'memory = "200MiB"')
    before = pack.describe()["pid"]
    with pytest.raises(WorkerDied, match=rf"its worker \(pid {before}\) was ended: memory .* of 200 MiB") as caught:
        pack.call("Allocate", size=400 * 2**20)
    assert f"limits.memory in {pack.folder}/pyproject.toml" in (caught.value.hint or "")
    assert pack.describe()["pid"] != before
    pack.close()
