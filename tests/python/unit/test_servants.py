"""Threads for what packs ask while nobody waits: a pack's own, and none where nothing is asked."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from comfy_airlock import connect
from comfy_airlock.wire import frame as frames
from comfy_airlock.wire.frame import build_frame
from comfy_airlock.wire.limits import SERVANTS_MAX
from scripted_server import PACK, Peer, ScriptedServer, pair_of

SECONDS_MAX = 20
OTHER_PACK = PACK + 1


def ask(peer: Peer, pack: int, number: int, method: str) -> None:
    peer.send_bytes(build_frame(frames.CALL, pack, number, peer.codec.encode([method, [], {}])))


def servants() -> int:
    return sum(each.name == "airlock-servant" for each in threading.enumerate())


def test_pack_whose_calls_all_block_holds_up_no_other_pack(tmp_path: Path) -> None:
    gate = threading.Event()
    is_ready = threading.Event()
    first: list[tuple[int, Any]] = []
    numbers = range(1, 2 * SERVANTS_MAX)
    others = len(numbers) + 1

    def script(peer: Peer) -> None:
        peer.welcome()
        assert is_ready.wait(SECONDS_MAX)
        for number in numbers:
            ask(peer, PACK, number, "block")
        ask(peer, OTHER_PACK, others, "answer")
        answer = peer.read()
        first.append((answer.peer, peer.codec.decode(answer.body)))
        assert servants() <= SERVANTS_MAX + 1
        gate.set()
        assert {peer.read().call for _ in numbers} == set(numbers)

    with ScriptedServer(tmp_path, script) as server, connect(server.path) as airlock:
        pair_of(airlock).service.offer({"block": lambda: gate.wait(SECONDS_MAX)})
        airlock._lines.pack(OTHER_PACK).pair.service.offer({"answer": lambda: "at once"})
        assert servants() == 0
        is_ready.set()
        server.join(SECONDS_MAX)
    assert first == [(OTHER_PACK, "at once")]
