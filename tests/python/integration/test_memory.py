"""Arrays and large bytes between hosts and real workers: all that holds of memory that they share."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from comfy_airlock import Airlock, Pack, WorkerDied, connect
from comfy_airlock.memory import heap as heap_module
from comfy_airlock.memory import libc
from comfy_airlock.memory.room import Room
from comfy_airlock.wire.errors import Disconnected, LimitExceeded
from processes import is_running, until
from routes import sharing_by

from .conftest import PACKS, ROOT, has_no_leases

MiB = 1 << 20
LARGE = np.arange(MiB, dtype="f4")


@pytest.fixture(scope="module", params=["line", "relay"])
def by_route(request: pytest.FixtureRequest) -> Iterator[Airlock]:
    """A host whose arrays pack is at work, and that has memory to share."""
    with sharing_by(request.param) as airlock:
        pack = airlock.open(PACKS / "arrays")
        for size in (1 << 17, 1 << 21):
            pack.call("Echo", value=np.zeros(size, "u1"))
        assert (airlock._lines.pack(pack._peer)._route()[0] is airlock._connection) == (request.param == "relay")
        yield airlock


@pytest.fixture
def pack(by_route: Airlock) -> Pack:
    return by_route.open(PACKS / "arrays")


# What crosses.


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, MiB, 5 * MiB + 3, 40 * MiB])
def test_arrays_and_bytes_of_any_size_cross_both_ways(pack: Pack, size: int) -> None:
    array = np.arange(size, dtype="u1")
    back, _ = pack.call("Echo", value=array)
    assert np.array_equal(back, array)
    data = array.tobytes()
    (deep,), _ = pack.call("Echo", value=[{"x": data}])
    assert deep == {"x": data}
    made, _ = pack.call("Make", size=size, of=7)
    assert made.sum(dtype=int) == 7 * size
    (edited,) = pack.call("EditInPlace", value=array)
    assert (edited == 7).all()
    assert np.array_equal(array, np.arange(size, dtype="u1"))


def test_a_large_array_costs_no_frame_of_its_size(pack: Pack, by_route: Airlock) -> None:
    before = by_route.memory()
    back, _ = pack.call("Echo", value=LARGE)
    assert np.array_equal(back, LARGE)
    again, _ = pack.call("Echo", value=back)
    report = by_route.memory()
    assert report["copied_bytes"] - before["copied_bytes"] == LARGE.nbytes
    assert report["forwarded_bytes"] - before["forwarded_bytes"] == LARGE.nbytes
    assert np.array_equal(again, LARGE)


def test_what_passes_through_leaves_no_lease(pack: Pack, by_route: Airlock) -> None:
    back: Any = None
    for _ in range(20):
        back, _ = pack.call("Echo", value=[LARGE, {"twice": LARGE}, bytes(MiB)])
    assert back[2] == bytes(MiB)
    del back
    until(lambda: has_no_leases(by_route))
    # Of 60 arrays: how many are under way at once depends on how soon returns are read.
    assert by_route.memory()["segments"] <= 8


def test_views_of_one_array_alias_at_the_worker_and_when_they_come_back(pack: Pack) -> None:
    base = LARGE.copy()
    (whole, part), _ = pack.call("Echo", value=[base, base[100:]])
    whole[:] = 1
    assert part.max() == 1


def test_arrays_cross_between_numpy_of_different_versions(pack: Pack) -> None:
    image = np.linspace(0, 1, 3 * 512 * 512, dtype="f4").reshape(1, 512, 512, 3)
    inverted, seen = pack.call("Invert", image=image)
    assert seen != f"numpy {np.__version__}"
    assert np.array_equal(inverted, 1.0 - image)
    fields = np.zeros(70_000, [("x", ">f4"), ("y", "<i2", (3,))])
    fields["y"][5] = 7
    back, _ = pack.call("Echo", value=fields)
    assert back.dtype == fields.dtype
    assert (back == fields).all()


def test_threads_and_coroutines_send_at_once_and_each_gets_its_own(pack: Pack, by_route: Airlock) -> None:
    def made(seed: int) -> Any:
        return np.random.default_rng(seed).integers(0, 255, 70_000 + seed * 90_001 % (3 * MiB), "u1")

    def checksum(array: Any) -> str:
        return hashlib.sha1(array).hexdigest()

    def by_thread(base: int) -> list[bool]:
        return [
            checksum(pack.call("Echo", value=made(each))[0]) == checksum(made(each)) for each in range(base, base + 8)
        ]

    async def one(seed: int) -> bool:
        back, _ = await pack.acall("Echo", value={"a": made(seed), "b": bytes(made(seed))})
        return checksum(back["a"]) == checksum(made(seed)) == checksum(back["b"])

    async def many(base: int) -> list[bool]:
        return await asyncio.gather(*(one(each) for each in range(base, base + 8)))

    with ThreadPoolExecutor(5) as threads:
        results = [
            *threads.map(by_thread, (0, 100, 200)),
            *threads.map(lambda base: asyncio.run(many(base)), (300, 400)),
        ]
    assert all(map(all, results))
    until(lambda: has_no_leases(by_route))


def test_an_array_of_more_than_4_gib_crosses(monkeypatch: pytest.MonkeyPatch) -> None:
    size = (4 << 30) + 5 * MiB
    copy = libc.copy

    def copy_some(target: int, source: int, length: int) -> None:
        # Of what nobody looks at there are no pages: this machine need not have so much memory.
        for at in (0, 1 << 32, length - 4096) if length > 1 << 32 else ():
            copy(target + at, source + at, 4096)
        if length <= 1 << 32:
            copy(target, source, length)

    monkeypatch.setattr(os, "posix_fallocate", lambda *_: None)
    monkeypatch.setattr(libc, "populate", lambda *_: None)
    monkeypatch.setattr(libc, "copy", copy_some)
    monkeypatch.setattr(heap_module, "memory_room", lambda: None)
    with connect() as airlock:
        array = np.zeros(size, "u1")
        array[1 << 32], array[-1] = 5, 3
        peeked = airlock.open(PACKS / "arrays").call("Peek", value=array, at=[0, 1 << 32, -1])
        assert peeked == ([0, 5, 3],)
        assert airlock.memory()["segment_bytes"] > size


# Workers that end.


def test_a_result_stays_readable_when_its_worker_was_killed(pack: Pack, by_route: Airlock) -> None:
    made, pid = pack.call("Make", size=3 * MiB, of=5)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not is_running(pid))
    assert made.sum(dtype=int) == 15 * MiB

    # And goes on to the next.
    until(partial(_comes_back, pack, made))
    del made
    until(lambda: has_no_leases(by_route))


def _comes_back(pack: Pack, array: Any) -> bool:
    """Whether it does; False where the call was for the worker that is gone."""
    try:
        return bool(np.array_equal(pack.call("Echo", value=array)[0], array))
    except WorkerDied:
        return False


def test_a_first_call_may_bring_a_large_array() -> None:
    with connect() as airlock:
        back, _ = airlock.open(PACKS / "arrays").call("Echo", value=LARGE)
        assert np.array_equal(back, LARGE)
        del back
        until(lambda: has_no_leases(airlock))


@pytest.mark.parametrize("route", ["line", "relay"])
def test_calls_with_large_arrays_are_right_or_fail_while_workers_die(route: str) -> None:
    with sharing_by(route) as airlock:
        _send_while_workers_die(airlock)


def _send_while_workers_die(airlock: Airlock) -> None:
    pack = airlock.open(PACKS / "arrays")
    shared = [airlock.share(LARGE)]
    over = threading.Event()
    wrong: list[object] = []
    done = [0]

    def send(seed: int) -> None:
        own = np.full(100_000 + seed, seed, "u1")
        while not over.is_set():
            try:
                (one, other), _ = pack.call("Echo", value=[shared[0], own])
            except WorkerDied:
                continue
            except Exception as error:
                wrong.append(error)
                return
            if not (np.array_equal(one, LARGE) and np.array_equal(other, own)):
                wrong.append((one, other))
            done[0] += 1

    threads = [threading.Thread(target=send, args=[seed]) for seed in range(3)]
    for thread in threads:
        thread.start()
    before = 0
    try:
        for _ in range(3):
            before = done[0]
            until(lambda before=before: done[0] > before + 6 or bool(wrong))
            try:
                os.kill(pack.describe()["pid"], signal.SIGKILL)
            except WorkerDied:
                pass
    finally:
        # As they are over: some at the next worker, some at none.
        over.set()
        for thread in threads:
            thread.join()
    assert wrong == []
    shared.clear()
    until(lambda: has_no_leases(airlock))
    # Nothing is kept for a process that will never come.
    (leases,) = [each for each in airlock._lines.sharing._leases.values() if each.name == "pack arrays"]
    assert leases.given == 0


def test_a_call_that_is_given_up_while_its_worker_starts_leaves_no_lease() -> None:
    async def give_up(pack: Pack) -> None:
        call = asyncio.create_task(pack.acall("Echo", value=LARGE))
        await asyncio.sleep(0.05)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    with connect() as airlock:
        pack = airlock.open(PACKS / "arrays")
        asyncio.run(give_up(pack))
        until(lambda: has_no_leases(airlock))
        back, _ = pack.call("Echo", value=LARGE)
        assert np.array_equal(back, LARGE)
        del back
        until(lambda: has_no_leases(airlock))


def test_a_call_whose_worker_does_not_start_leaves_no_lease(tmp_path: Path) -> None:
    folder = tmp_path / "dies"
    folder.mkdir()
    (folder / "pyproject.toml").write_text(
        '[project]\nname = "dies"\nversion = "1.0.0"\ndependencies = []\n'
        '[tool.comfy.isolation]\ncan_isolate = true\nenv = { PYTHONPATH = "." }\n'
    )
    # Before anything of Airlock's runs.
    (folder / "sitecustomize.py").write_text("import os\nos._exit(3)\n")
    with connect() as airlock:
        pack = airlock.open(folder)
        for _ in range(2):
            with pytest.raises(Exception, match="ended before it was ready"):
                pack.call("Echo", value=LARGE)
        until(lambda: has_no_leases(airlock))


def test_a_worker_that_takes_the_place_of_an_idle_one_is_given_what_it_needs() -> None:
    with connect() as airlock:
        pack = airlock.open(PACKS / "keeper")
        pids = []
        for _ in range(3):
            # Over the relay at first, which starts a worker, and then over its line: segments of both kinds.
            (pid,) = pack.call("Pid")
            for _ in range(2):
                for size in (100_000, 2 * MiB):
                    assert pack.call("Length", value=bytes(size)) == (size,)
            pids.append(pid)
            until(lambda pid=pid: not is_running(pid))
        assert len(set(pids)) == 3
        until(lambda: has_no_leases(airlock))


# Who keeps what.


@pytest.fixture
def short_of_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Airlock]:
    """A host that may share 150 MiB."""
    with connect() as airlock:
        pack = airlock.open(PACKS / "arrays")
        pack.call("Echo", value=1)
        monkeypatch.setattr(
            heap_module,
            "memory_room",
            lambda: Room(150 * MiB - airlock._lines.sharing.memory.heap.size, "this test"),  # type: ignore[union-attr] # pyright: ignore[reportOptionalMemberAccess]
        )
        yield airlock


def test_a_worker_that_keeps_tensors_is_named_when_there_is_no_memory_left(short_of_memory: Airlock) -> None:
    pack = short_of_memory.open(PACKS / "arrays")
    for number in range(3):
        pack.call("Hold", value=np.full(40 * MiB, number + 1, "u1"))
    with pytest.raises(LimitExceeded, match=f"pack arrays holds {120 * MiB} bytes in 3 leases"):
        pack.call("Hold", value=np.zeros(40 * MiB, "u1"))
    assert pack.call("Drop") == (6 * 40 * MiB,)
    # What it has let go of is there again, at once.
    assert pack.call("Hold", value=np.full(100 * MiB, 1, "u1")) == (1,)


def test_a_worker_whose_garbage_is_in_cycles_gives_it_back_when_memory_is_short(short_of_memory: Airlock) -> None:
    pack = short_of_memory.open(PACKS / "arrays")
    for _ in range(6):
        pack.call("Hold", value=np.ones(50 * MiB, "u1"), in_cycle=True)
    assert short_of_memory.memory()["segment_bytes"] <= 150 * MiB


def test_out_of_mappings_one_call_fails_and_says_why(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> int:
        raise OSError(12, "Cannot allocate memory")

    with monkeypatch.context() as patch:
        patch.setattr(libc, "map_private", full)
        with pytest.raises(LimitExceeded, match=r"(?s)could not be mapped.*max_map_count"):
            pack.call("Make", size=MiB, of=1)
    made, _ = pack.call("Make", size=MiB, of=1)
    assert made.sum(dtype=int) == MiB


# Other processes of the host's.

_HOST = """
import gc, os, resource, sys, time
import numpy as np
from comfy_airlock import connect
from comfy_airlock.wire.errors import AirlockError, LimitExceeded

airlock = connect()
pack = airlock.open(sys.argv[1])
large = np.arange(1 << 20, dtype="f4")
made, pid = pack.call("Make", size=3 << 20, of=5)
"""


def run_host(body: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-c", _HOST + body, str(PACKS / "arrays")]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "worker" / "src")}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_out_of_descriptors_calls_fail_and_say_why_and_go_on_later() -> None:
    ended = run_host("""
keep, _ = pack.call("Echo", value=large[:20_000])
old = resource.getrlimit(resource.RLIMIT_NOFILE)
highest = max(map(int, os.listdir("/proc/self/fd")))
resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, old[1]))
taken = []
try:
    while True:
        taken.append(os.dup(0))
except OSError:
    pass
try:
    pack.call("Echo", value=large)
    print("sent")
except LimitExceeded as error:
    print("descriptors" in str(error))
try:
    # The worker makes one of another kind, which the host can't take.
    pack.call("Make", size=100 << 20, of=1)
    print("received")
except LimitExceeded as error:
    print("descriptors" in str(error))
for each in taken:
    os.close(each)
resource.setrlimit(resource.RLIMIT_NOFILE, old)
back, _ = pack.call("Echo", value=large)
print((back == large).all(), made.sum(dtype=int) == 15 << 20)
again, _ = pack.call("Make", size=2 << 20, of=1)
print(again.sum(dtype=int) == 2 << 20, airlock._lines.pack(pack._peer).line is not None)
airlock.close()
""")
    assert ended.stderr == ""
    assert ended.stdout.split() == ["True"] * 6


def test_a_forked_child_drops_its_copies_and_its_parents_leases_stay() -> None:
    ended = run_host("""
back, _ = pack.call("Echo", value=large)
time.sleep(0.2)
before = airlock.memory()
for how in ("drops", "exits", "calls"):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        said = b"?"
        if how == "drops":
            same = made.sum(dtype=int) == 15 << 20 and (back == large).all()
            made[:] = 1
            del made, back
            gc.collect()
            said = b"read" if same else b"wrong"
        elif how == "calls":
            try:
                pack.call("Echo", value=large)
            except AirlockError as error:
                said = b"forked" if "forked" in str(error) else str(error).encode()
        os.write(write, said)
        if how == "exits":
            sys.exit(0)
        os._exit(0)
    os.close(write)
    print(os.read(read, 1000).decode(), os.waitpid(child, 0)[1])
time.sleep(0.1)
after = airlock.memory()
print(all(before[each] == after[each] for each in ("leases_held", "leases_given", "segments")))
print(made.sum(dtype=int) == 15 << 20, (back == large).all())
print((pack.call("Echo", value=made)[0] == made).all())
airlock.close()
""")
    assert (ended.stdout.split(), ended.stderr) == (
        ["read", "0", "?", "0", "forked", "0", "True", "True", "True", "True"],
        "",
    )


@pytest.mark.parametrize(
    "body", ["", "airlock.close()", "keep = airlock.share(large); airlock.close()", "pack.call('Hold', value=large)"]
)
def test_an_interpreter_that_exits_with_tensors_says_nothing(body: str) -> None:
    ended = run_host(f"cycle = [made]; cycle.append(cycle); view = made[5:]\n{body}\nsys.exit(7)\n")
    assert (ended.returncode, ended.stdout, ended.stderr) == (7, "", "")


# In the end.


def _segments_here() -> list[str]:
    found = [line for line in Path("/proc/self/maps").read_text().splitlines() if "/memfd:airlock" in line]
    for entry in Path("/proc/self/fd").iterdir():
        try:
            name = os.readlink(entry)
        except FileNotFoundError:
            continue
        if "/memfd:airlock" in name or name.endswith("/pagemap"):
            found.append(name)
    return found


def _new(before: list[str]) -> list[str]:
    gc.collect()
    return [each for each in _segments_here() if each not in before]


@pytest.mark.parametrize("route", ["line", "relay"])
def test_when_a_host_has_closed_nothing_of_what_was_shared_is_left(route: str) -> None:
    before = _segments_here()
    with sharing_by(route) as airlock:
        pack = airlock.open(PACKS / "arrays")
        back, _ = pack.call("Echo", value=[LARGE, np.zeros(70_000, "u1")])
        made, _ = pack.call("Make", size=3 * MiB, of=2)
        large, _ = pack.call("Make", size=40 * MiB, of=2)
        shared = airlock.share(LARGE)
        pack.call("Hold", value=shared)
        assert _new(before)
    # What is kept is readable, and all that there is still.
    assert np.array_equal(back[0], LARGE)
    assert made.sum(dtype=int) == 6 * MiB
    assert np.array_equal(shared, LARGE)
    assert large[-1] == 2
    with pytest.raises(Disconnected):
        pack.call("Echo", value=LARGE)
    del back, made, shared, large
    until(lambda: not _new(before))


def test_a_call_that_was_given_up_keeps_nothing_when_its_host_has_closed() -> None:
    before = _segments_here()

    async def give_up(pack: Pack) -> None:
        call = asyncio.create_task(pack.acall("Echo", value=LARGE))
        await asyncio.sleep(0.05)
        call.cancel()
        await asyncio.wait([call])

    with sharing_by("relay") as airlock:
        pack = airlock.open(PACKS / "arrays")
        pack.call("Echo", value=1)
        asyncio.run(give_up(pack))
        time.sleep(0.1)
    until(lambda: not _new(before))


def test_a_host_that_sends_nothing_more_gives_its_memory_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap_module, "_IDLE_SECONDS", 0.2)
    with connect() as airlock:
        pack = airlock.open(PACKS / "arrays")
        for _ in range(2):
            back, _ = pack.call("Echo", value=LARGE)
            assert np.array_equal(back, LARGE)
            assert airlock.memory()["segments"] > 0
            del back
            until(lambda: has_no_leases(airlock) and airlock.memory()["segments"] == 0)
