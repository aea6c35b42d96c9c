"""The same cases over every route between a host and a worker: memory, line and relay."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from comfy_airlock import Pack, Progress, RemoteIterator, RemoteObject, remote
from comfy_airlock.wire.errors import (
    BadRequest,
    DeadlineExceeded,
    LimitExceeded,
    ReferenceGone,
    ValueUnsupported,
    WorkerDied,
)
from comfy_airlock.wire.limits import FRAME_BYTES_MAX
from routes import FOLDER, ROUTES, connect_by, pair_of, route_to_pack

SECONDS_MAX = 20
MIB = 1 << 20


@pytest.fixture(scope="module", params=ROUTES)
def pack(request: pytest.FixtureRequest) -> Iterator[Pack]:
    with route_to_pack(request.param) as opened:
        # The worker's event loop is there before the first test looks for what it leaves behind.
        asyncio.run(opened.acall("AsyncEcho"))
        yield opened


def eventually(condition: Callable[[], object]) -> None:
    until = time.monotonic() + SECONDS_MAX
    while not condition():
        assert time.monotonic() < until
        gc.collect()
        time.sleep(0.01)


def value_of(pack: Pack, node: str, **inputs: Any) -> Any:
    (value,) = pack.call(node, **inputs)
    return value


def test_values_and_their_types_come_back(pack: Pack) -> None:
    for value in (42, None, "text", [1, (2, {3})], {"a": {1: 2.5}}, b"\0" * 100_000, 1 << 80):
        assert value_of(pack, "Echo", value=value) == value
        assert asyncio.run(pack.acall("AsyncEcho", value=value)) == (value,)


def test_exceptions_come_back_as_their_type_and_the_next_call_runs(pack: Pack) -> None:
    with pytest.raises(KeyError, match="as asked"):
        pack.call("Raise", message="as asked")
    assert value_of(pack, "Echo", value=1) == 1


# Calls back


def test_function_is_called_where_it_lives_in_the_thread_that_waits(pack: Pack) -> None:
    threads: list[str] = []

    def double(number: int) -> int:
        threads.append(threading.current_thread().name)
        return number * 2

    assert value_of(pack, "Call", function=double, args=[21], times=3) == 42
    assert threads == ["MainThread"] * 3


def test_function_that_raises_does_so_through_the_node(pack: Pack) -> None:
    def fail() -> None:
        raise FileNotFoundError(2, "no such file", "/x.png")

    with pytest.raises(FileNotFoundError, match="no such file") as caught:
        pack.call("Call", function=fail, args=[])
    assert caught.value.filename == "/x.png"


def test_calls_nest_to_any_depth(pack: Pack) -> None:
    def descend(depth: int) -> int:
        return value_of(pack, "Descend", function=descend, depth=depth)

    assert descend(30) == 30


@pytest.mark.parametrize("is_async", [False, True], ids=["function", "coroutine function"])
def test_function_is_called_on_the_loop_that_awaits(pack: Pack, is_async: bool) -> None:
    async def main() -> tuple[Any, bool]:
        loop = asyncio.get_running_loop()
        loops: list[Any] = []

        def plain(number: int) -> int:
            loops.append(asyncio.get_running_loop())
            return number + 1

        async def awaited(number: int) -> int:
            await asyncio.sleep(0.01)
            return plain(number)

        function = awaited if is_async else plain
        (first,) = await pack.acall("Call", function=function, args=[1])
        (second,) = await pack.acall("AwaitCall", function=function, args=[first])
        return second, loops == [loop, loop]

    assert asyncio.run(main()) == (3, True)


def test_coroutine_function_is_awaited_where_a_thread_waits(pack: Pack) -> None:
    async def later(number: int) -> int:
        await asyncio.sleep(0.01)
        return number + 1

    assert value_of(pack, "Call", function=later, args=[1]) == 2


def test_function_is_called_when_nobody_waits(pack: Pack) -> None:
    called = threading.Event()
    pack.call("CallLater", function=called.set, args=[])
    assert called.wait(SECONDS_MAX)


def test_leader_in_a_function_leaves_the_lead_to_others(pack: Pack) -> None:
    others_done = threading.Event()

    def wait_for_others() -> bool:
        return others_done.wait(SECONDS_MAX)

    with ThreadPoolExecutor(1, "airlock-test") as pool:

        def call_asynchronously() -> None:
            assert asyncio.run(pack.acall("AsyncEcho", value=5)) == (5,)
            others_done.set()

        # On the worker's loop, so that the worker takes both at once.
        asyncio.run(pack.acall("AsyncEcho"))
        waits = pool.submit(lambda: asyncio.run(pack.acall("AwaitCall", function=wait_for_others, args=[])))
        call_asynchronously()
        assert waits.result(SECONDS_MAX) == (True,)


def test_threads_call_and_are_called_at_once(pack: Pack) -> None:
    def work(number: int) -> list[Any]:
        def add(value: int) -> int:
            return value + number

        return [value_of(pack, "Call", function=add, args=[each]) for each in range(25)]

    with ThreadPoolExecutor(8, "airlock-test") as pool:
        for number, sums in enumerate(pool.map(work, range(8))):
            assert sums == [each + number for each in range(25)]


def test_loops_come_and_go(pack: Pack) -> None:
    for number in range(3):
        assert asyncio.run(pack.acall("AsyncEcho", value=number)) == (number,)


def test_large_bodies_cross_both_ways_at_once(pack: Pack) -> None:
    # Texts cross in frames, however long; bytes of this size would lie in memory that both map.
    count = 15 * MIB

    def measure(data: str) -> int:
        return len(data)

    with ThreadPoolExecutor(2, "airlock-test") as pool:
        sent = [pool.submit(pack.call, "Exchange", function=measure, count=count) for _ in range(2)]
        received = [pool.submit(pack.call, "Echo", value=count * "x") for _ in range(2)]
        for each in sent:
            length, data = each.result(60)
            assert (length, len(data)) == (count, count)
        for each in received:
            assert len(each.result(60)[0]) == count


def test_calls_nest_through_packs_and_coroutines(pack: Pack) -> None:
    async def outer() -> Any:
        return (await pack.acall("AwaitCall", function=inner, args=[]))[0]

    async def inner() -> Any:
        # Made for the call that waits above it, in a task that the loop started for it.
        return (await pack.acall("AsyncEcho", value="deep"))[0]

    async def main() -> Any:
        return (await pack.acall("AwaitCall", function=outer, args=[]))[0]

    # Twice: the second time the loop's ways are there already.
    for _ in range(2):
        assert asyncio.run(asyncio.wait_for(main(), SECONDS_MAX)) == "deep"


def test_task_that_outlives_its_call_calls_for_itself(pack: Pack) -> None:
    tasks: list[asyncio.Task[Any]] = []

    async def later() -> Any:
        await asyncio.sleep(0.1)
        return await pack.acall("AsyncEcho", value="later")

    async def start() -> None:
        tasks.append(asyncio.create_task(later()))

    async def main() -> Any:
        await pack.acall("AwaitCall", function=start, args=[])
        return await tasks[0]

    assert asyncio.run(asyncio.wait_for(main(), SECONDS_MAX)) == ("later",)


def test_function_that_would_end_the_process_ends_its_call(pack: Pack) -> None:
    def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        pack.call("Call", function=leave, args=[])
    # Where nobody waits there is nobody to end, and others are served as before.
    for _ in range(40):
        pack.call("CallLater", function=leave, args=[])
    called = threading.Event()
    pack.call("CallLater", function=called.set, args=[])
    assert called.wait(SECONDS_MAX)


def test_message_that_is_too_long_fails_alone(pack: Pack) -> None:
    with pytest.raises(LimitExceeded):
        pack.call("Echo", value=FRAME_BYTES_MAX * "x")
    with pytest.raises(LimitExceeded):
        pack.call("Call", function=lambda: FRAME_BYTES_MAX * "x", args=[])
    assert value_of(pack, "Echo", value=1) == 1


# References


def test_object_of_the_hosts_comes_home_as_itself(pack: Pack) -> None:
    class Mine:
        pass

    mine = Mine()
    assert value_of(pack, "Echo", value=[mine, mine])[1] is mine
    pack.call("Hold", value=mine)
    assert value_of(pack, "TakeHeld")[0] is mine


def test_object_of_the_packs_is_one_stand_in_and_comes_home_as_itself(pack: Pack) -> None:
    thing = value_of(pack, "MakeThing", name="first")
    assert isinstance(thing, RemoteObject)
    assert repr(thing).startswith("<RemoteObject ")
    assert value_of(pack, "Echo", value=thing) is thing
    assert value_of(pack, "IsThing", value=thing) is True


def test_objects_attributes_and_methods_are_used_where_it_lives(pack: Pack) -> None:
    thing = value_of(pack, "MakeThing", name="first")
    assert thing.name == "first"
    assert thing.greet("you", mark="?") == "first greets you?"
    assert asyncio.run(thing.greet.acall("all")) == "first greets all!"
    assert thing.itself() is thing
    with pytest.raises(LookupError, match="first has nothing"):
        thing.fail()
    with pytest.raises(AttributeError, match="nothing_such"):
        _ = thing.nothing_such
    with pytest.raises(AttributeError, match="_secret"):
        _ = thing._secret
    with pytest.raises(AttributeError, match="own process"):
        thing.name = "second"


class Model:
    name = "unet"
    _secret = "hidden"


def test_pack_uses_only_what_the_host_lets_it(pack: Pack) -> None:
    with pytest.raises(BadRequest, match="held and given back"):
        pack.call("ReadName", value=Model())
    assert value_of(pack, "ReadName", value=remote(Model())) == "unet"
    with pytest.raises(BadRequest, match="public"):
        pack.call("ReadSecret", value=remote(Model()))


def test_object_is_released_once_nobody_holds_it(pack: Pack) -> None:
    # What the tests before this one let go of is released when it is released.
    eventually(lambda: value_of(pack, "CountThings") == 0)
    thing = value_of(pack, "MakeThing")
    again = value_of(pack, "Echo", value=thing)
    before = value_of(pack, "CountThings")
    del thing
    assert value_of(pack, "CountThings") == before
    del again
    eventually(lambda: value_of(pack, "CountThings") == before - 1)


def test_hosts_objects_are_released_once_the_pack_drops_them(pack: Pack) -> None:
    pair = pair_of(pack)
    eventually(lambda: pair.references.counts[0] == 0)
    pack.call("Hold", value=Model())
    assert pair.references.counts[0] == 1
    pack.call("TakeHeld")
    eventually(lambda: pair.references.counts[0] == 0)


def test_references_in_a_call_that_reaches_no_worker_are_taken_back() -> None:
    with connect_by("relay") as airlock:
        pack = airlock.open(FOLDER)
        # No process starts as fast.
        with pytest.raises(DeadlineExceeded):
            pack.options(timeout=0.001).call("Hold", value=Model())
        assert pair_of(pack).references.counts == (0, 0)


def test_value_that_can_be_no_reference_is_refused_and_nothing_leaks(pack: Pack) -> None:
    class Text(str):
        __slots__ = ()

    before = pair_of(pack).references.counts
    for value in (Text("x"), threading, Model):
        with pytest.raises(ValueUnsupported, match=r"value\[2\]\['value'\]\[1\]"):
            pack.call("Echo", value=[Model(), value])
    assert pair_of(pack).references.counts == before


# Streams


def test_generator_is_iterated_over_here_and_runs_no_further_than_asked(pack: Pack) -> None:
    numbers = value_of(pack, "Count", stop=100_000)
    assert isinstance(numbers, RemoteIterator)
    assert [next(numbers) for _ in range(3)] == [0, 1, 2]
    produced, closed = pack.call("Produced")
    assert produced <= 256
    numbers.close()
    assert pack.call("Produced") == (produced, closed + 1)
    assert list(numbers) == []


def test_streams_items_come_in_order_to_the_end(pack: Pack) -> None:
    assert list(value_of(pack, "Count", stop=1000)) == list(range(1000))
    assert list(value_of(pack, "Count", stop=0)) == []
    large = list(value_of(pack, "Count", stop=20, bytes_each=MIB))
    assert [len(each) for each in large] == [MIB] * 20


def test_stream_at_its_end_comes_home_as_itself(pack: Pack) -> None:
    numbers = iter([1, 2])
    assert value_of(pack, "Sum", numbers=numbers) == 3
    theirs = value_of(pack, "Count", stop=2)
    assert list(theirs) == [0, 1]
    assert value_of(pack, "Echo", value=[theirs])[0] is theirs
    assert list(theirs) == []


def test_stream_that_fails_gives_the_items_before(pack: Pack) -> None:
    numbers = value_of(pack, "Count", stop=10, fail_at=5)
    assert [next(numbers) for _ in range(5)] == list(range(5))
    with pytest.raises(ValueError, match="failed at 5"):
        next(numbers)


def test_asynchronous_generator_is_iterated_over_either_way(pack: Pack) -> None:
    async def collect() -> list[int]:
        (numbers,) = await pack.acall("CountSlowly", stop=5, seconds=0.01)
        return [each async for each in numbers]

    assert asyncio.run(collect()) == list(range(5))
    assert list(value_of(pack, "CountSlowly", stop=5, seconds=0.01)) == list(range(5))


def test_hosts_generators_are_iterated_over_in_the_pack(pack: Pack) -> None:
    async def later(stop: int) -> Any:
        for number in range(stop):
            await asyncio.sleep(0)
            yield number

    assert value_of(pack, "Sum", numbers=iter(range(1000))) == sum(range(1000))
    assert value_of(pack, "Sum", numbers=(each * 2 for each in range(10))) == 90
    assert asyncio.run(pack.acall("AsyncSum", numbers=later(10))) == (45,)
    assert asyncio.run(pack.acall("AsyncSum", numbers=iter(range(10)))) == (45,)


# Progress and events


def test_progress_arrives_in_order_before_the_answer(pack: Pack) -> None:
    said: list[Progress] = []
    pack.options(on_progress=said.append).call("Report", steps=5)
    assert [(each.stage, each.value, each.total, each.message) for each in said] == [
        ("running", step, 5, f"step {step}") for step in range(1, 6)
    ]


def test_events_arrive_in_order(pack: Pack) -> None:
    told: list[Any] = []
    pack.on("told", told.append)
    pack.call("Emit", values=list(range(200)))
    eventually(lambda: len(told) == 200)
    assert told == list(range(200))
    pack.on("told", None)


def test_events_that_nobody_gets_to_are_dropped_and_nothing_else(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comfy_airlock.calls.event_handlers.EVENT_BYTES_MAX", 100_000)
    told: list[int] = []
    gate = threading.Event()

    def handle(value: bytes) -> None:
        assert gate.wait(SECONDS_MAX)
        told.append(len(value))

    pack.on("told", handle)
    pack.call("Emit", values=[bytes(20_000)] * 50)
    gate.set()
    eventually(lambda: len(told) >= 5)
    pack.call("Emit", values=[b"after"])
    eventually(lambda: told[-1] == 5)
    assert len(told) < 20
    pack.on("told", None)


def test_events_go_to_the_pack(pack: Pack) -> None:
    echoed: list[Any] = []
    pack.on("echo", echoed.append)
    pack.call("Listen")
    for value in ({"a": 1}, (2, 3)):
        pack.emit("asked", value)
    eventually(lambda: len(echoed) == 2)
    assert echoed == [{"a": 1}, (2, 3)]
    pack.on("echo", None)


# Deadlines and cancelling


def test_deadline_ends_a_call_and_what_it_called(pack: Pack) -> None:
    entered, left = threading.Event(), threading.Event()

    def slow() -> None:
        # On the thread that waits for the call: it is answered once this is done.
        entered.set()
        try:
            pack.call("UntilCancelled")
        finally:
            left.set()

    with pytest.raises(DeadlineExceeded):
        pack.options(timeout=0.3).call("Call", function=slow, args=[])
    assert entered.is_set()
    assert left.wait(SECONDS_MAX)
    assert value_of(pack, "Echo", value=1) == 1


def test_node_sees_that_it_was_cancelled(pack: Pack) -> None:
    stopped = threading.Event()
    pack.on("stopped", lambda _: stopped.set())

    async def main() -> None:
        loop, began = asyncio.get_running_loop(), asyncio.Event()
        pack.on("began", lambda _: loop.call_soon_threadsafe(began.set))
        task = asyncio.create_task(pack.acall("UntilCancelled"))
        await began.wait()
        pack.on("began", None)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert stopped.wait(SECONDS_MAX)
    assert value_of(pack, "Echo", value=1) == 1


def test_node_with_large_inputs_sees_that_it_was_cancelled(pack: Pack) -> None:
    stopped = threading.Event()
    pack.on("stopped", lambda _: stopped.set())
    with pytest.raises(DeadlineExceeded):
        pack.options(timeout=1.5).call("UntilCancelled", value=15 * MIB * "x")
    assert stopped.wait(SECONDS_MAX)
    pack.on("stopped", None)


def test_queued_call_that_is_cancelled_never_runs(pack: Pack) -> None:
    async def main() -> None:
        first = asyncio.create_task(pack.acall("UntilCancelled"))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(pack.acall("Hold", value=1))
        await asyncio.sleep(0.05)
        for task in (second, first):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    assert value_of(pack, "TakeHeld") == []


# Peers that stall, and the end


def test_cancel_reaches_a_call_back_that_waits_for_another_pack() -> None:
    with connect_by("line") as airlock, ThreadPoolExecutor(1, "airlock-test") as pool:
        caller, other = airlock.open(FOLDER), airlock.open(FOLDER.parent / "probe")
        other.call("Echo")
        entered, left = threading.Event(), threading.Event()

        def slow() -> None:
            entered.set()
            try:
                other.call("Sleep", seconds=600.0)
            finally:
                left.set()

        pid = caller.describe()["pid"]
        waits = pool.submit(caller.call, "Call", function=slow, args=[])
        assert entered.wait(SECONDS_MAX)
        time.sleep(0.1)
        os.kill(pid, signal.SIGKILL)
        # Not when the other pack is done, but at once.
        assert left.wait(SECONDS_MAX)
        with pytest.raises(WorkerDied):
            waits.result(SECONDS_MAX)
        other.close()


@pytest.mark.parametrize("route", ["line", "relay"])
def test_worker_that_stalls_holds_up_nobody_but_its_own_callers(route: str) -> None:
    with connect_by(route) as airlock, ThreadPoolExecutor(1, "airlock-test") as pool:
        stalled, well = airlock.open(FOLDER), airlock.open(FOLDER.parent / "probe")
        pid = stalled.describe()["pid"]
        well.call("Echo", value=0)
        os.kill(pid, signal.SIGSTOP)
        try:
            # More than all buffers and windows on the way.
            waits = pool.submit(stalled.call, "Echo", value=15 * MIB * "x")
            for number in range(50):
                assert well.call("Echo", value=bytes(number * 1000)) == (bytes(number * 1000),)
            assert not waits.done()
        finally:
            os.kill(pid, signal.SIGCONT)
        assert len(waits.result(SECONDS_MAX)[0]) == 15 * MIB


def is_given_a_call(pack: Pack) -> bool:
    """Whether a call is under way to a worker that reads nothing."""
    channel, _ = pair_of(pack)._route()
    if channel.is_direct:
        return channel.sender._mutex.locked()
    packs = pack._server.call("status", (), {})["packs"]
    return any(worker["relayed"] > 0 for each in packs for worker in each["workers"])


@pytest.mark.parametrize("route", ["line", "relay"])
def test_worker_that_is_killed_while_it_stalls_fails_what_was_being_sent(route: str) -> None:
    with route_to_pack(route) as pack, ThreadPoolExecutor(2, "airlock-test") as pool:
        pid = pack.describe()["pid"]
        os.kill(pid, signal.SIGSTOP)
        sent = [pool.submit(pack.call, "Echo", value=15 * MIB * "x") for _ in range(2)]
        eventually(lambda: is_given_a_call(pack))
        os.kill(pid, signal.SIGKILL)
        # One of which nothing had been sent goes to the next worker.
        errors = [each.exception(60) for each in sent]
        assert any(isinstance(each, WorkerDied) for each in errors)
        assert all(each is None or isinstance(each, WorkerDied) for each in errors)
        assert value_of(pack, "Echo", value=1) == 1


@pytest.mark.parametrize("route", ["line", "relay"])
def test_worker_that_dies_during_a_call_back_ends_all_that_was_held_of_it(route: str) -> None:
    with route_to_pack(route) as pack:
        thing = value_of(pack, "MakeThing")
        with pytest.raises(WorkerDied):
            pack.call("End", function=lambda: None)
        eventually(lambda: "gone" in repr(thing))
        with pytest.raises(ReferenceGone, match="has ended"):
            thing.greet("you")
        with pytest.raises(ReferenceGone):
            pack.call("Echo", value=thing)
        assert value_of(pack, "Echo", value=1) == 1
        assert pair_of(pack).references.counts == (0, 0)
