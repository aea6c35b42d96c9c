"""Progress that comes faster than its listener takes it: the newest of it, and the answer, within bounded memory."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from comfy_airlock import Airlock, connect
from comfy_airlock.calls.loops import LoopInbox
from comfy_airlock.calls.progress import WaitingProgress
from comfy_airlock.wire import frame as frames
from comfy_airlock.wire.frame import Frame, build_frame
from comfy_airlock.wire.limits import PROGRESS_BYTES_MAX
from scripted_server import PACK, Peer, ScriptedServer, pair_of

SECONDS_MAX = 20
COUNT = 3000
PART = "x" * 2000


def in_thread(airlock: Airlock, listener: Callable[[Any], None]) -> Any:
    return pair_of(airlock).call("run", (), {}, on_progress=listener)


def in_coroutine(airlock: Airlock, listener: Callable[[Any], None]) -> Any:
    return asyncio.run(pair_of(airlock).acall("run", (), {}, on_progress=listener))


@pytest.mark.parametrize("call", [in_thread, in_coroutine])
def test_flood_of_progress_is_bounded_and_the_newest_and_the_answer_arrive(tmp_path: Path, call: Any) -> None:
    all_read = threading.Event()
    heard: list[int] = []

    def script(peer: Peer) -> None:
        peer.welcome()
        own = peer.read()
        for number in range(COUNT):
            peer.send(frames.PROGRESS, own.call, {"number": number, "part": PART}, PACK)
        # What comes behind it is answered, so it was read.
        peer.send_bytes(build_frame(frames.CALL, PACK, 1, peer.codec.encode(["nothing", [], {}])))
        assert peer.read().kind == frames.ERROR
        all_read.set()
        peer.send(frames.RESULT, own.call, "done", PACK)

    def listen(said: dict[str, Any]) -> None:
        assert all_read.wait(SECONDS_MAX)
        heard.append(said["number"])

    with ScriptedServer(tmp_path, script) as server, connect(server.path) as airlock:
        assert call(airlock, listen) == "done"
    assert heard == sorted(set(heard))
    assert heard[-1] == COUNT - 1
    # What the listener was at came before; the rest is what waited.
    assert sum(number >= COUNT // 2 for number in heard) * len(PART) <= PROGRESS_BYTES_MAX
    assert len(heard) < COUNT // 2


def test_loops_other_tasks_go_on_while_more_and_more_comes_for_it() -> None:
    async def main() -> int:
        inbox = LoopInbox.of_running_loop()
        turns = 0

        def again(turns_max: int) -> None:
            nonlocal turns
            turns += 1
            if turns < turns_max:
                inbox.put(again, turns_max)

        inbox.put(again, 100_000)
        for _ in range(10):
            await asyncio.sleep(0)
        return turns

    assert asyncio.run(main()) < 100


def test_progress_without_a_body_is_bounded_too() -> None:
    waiting = WaitingProgress()
    for number in range(PROGRESS_BYTES_MAX // 8):
        waiting.put(Frame(frames.PROGRESS, 1, number, b""))
    kept = waiting.take()
    assert len(kept) <= PROGRESS_BYTES_MAX // 16
    assert kept[-1].call == PROGRESS_BYTES_MAX // 8 - 1


def test_newest_progress_is_kept_however_long_it_is_and_what_was_dropped_is_told() -> None:
    waiting = WaitingProgress()
    first, last = (Frame(frames.PROGRESS, 1, 1, bytes(size)) for size in (10, 2 * PROGRESS_BYTES_MAX))
    assert waiting.put(first) == []
    assert waiting.put(last) == [first]
    assert waiting.take() == [last]
    assert waiting.take() == []
