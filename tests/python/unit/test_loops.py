"""Event loops that read for themselves: those of coroutines that wait, and that of a worker that carries calls out."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator

import pytest

from comfy_airlock import Pack
from comfy_airlock.wire.channel import Channel
from routes import route_to_pack

CALLS = 50
SECONDS_MAX = 20

Calls = Callable[[Pack], Awaitable[None]]


@pytest.fixture
def readers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The threads that read, in order."""
    names: list[str] = []
    read = Channel.read

    def noted(channel: Channel, *args: object) -> object:
        names.append(threading.current_thread().name)
        return read(channel, *args)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(Channel, "read", noted)
    return names


@pytest.fixture
def pack(readers: list[str]) -> Iterator[Pack]:
    with route_to_pack("memory") as opened:
        yield opened


async def one_after_the_other(pack: Pack) -> None:
    for number in range(CALLS):
        assert await pack.acall("AsyncEcho", value=number) == (number,)


def test_no_thread_hands_anything_over_where_loops_call_loops(pack: Pack, readers: list[str]) -> None:
    asyncio.run(one_after_the_other(pack))
    # The keepers had the lead at first, and leave it once they see that the loops read.
    assert set(readers[-CALLS:]) == {"MainThread", "airlock-memory-main"}


def test_coroutine_that_calls_the_host_back_hears_from_its_own_loop(pack: Pack, readers: list[str]) -> None:
    async def back(value: int) -> int:
        return value + 1

    async def calls() -> None:
        for number in range(CALLS):
            assert await pack.acall("AwaitCall", function=back, args=[number]) == (number + 1,)

    asyncio.run(calls())
    assert set(readers[-CALLS:]) == {"MainThread", "airlock-memory-main"}


def test_keeper_reads_what_comes_while_a_workers_loop_is_at_work(pack: Pack, readers: list[str]) -> None:
    asyncio.run(one_after_the_other(pack))
    stopped = threading.Event()
    pack.on("stopped", lambda _: stopped.set())
    readers.clear()

    async def give_up() -> None:
        # It keeps the loop's thread until its cancel was read.
        call = asyncio.create_task(pack.acall("UntilCancelled"))
        await asyncio.sleep(0.1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(give_up())
    assert stopped.wait(SECONDS_MAX)
    assert "airlock-memory-worker" in readers
