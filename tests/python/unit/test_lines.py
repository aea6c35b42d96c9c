"""Calls over a line, against a scripted server: which way they go, and what becomes of them when the line ends."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from comfy_airlock import Airlock, connect
from comfy_airlock.host.lines import PackLink
from comfy_airlock.wire import frame as frames
from comfy_airlock.wire.channel import Channel
from comfy_airlock.wire.errors import AirlockError, DeadlineExceeded, Disconnected, ProtocolError, WorkerDied
from comfy_airlock.wire.frame import build_frame
from scripted_server import PACK, Peer, ScriptedServer, pair_of

SECONDS_MAX = 20
DIED = {"code": "worker_died", "message": "pack ink: its worker ended", "exit": "killed by SIGKILL"}


def call(airlock: Airlock, *args: Any, **options: Any) -> Any:
    return pair_of(airlock).call("run", args, {}, **options)


def until_lined(airlock: Airlock) -> None:
    """Until a line is there: the relay's answer below comes after the frame that names it."""
    assert airlock.status() == "lined"


def joined(then: Callable[[Peer, Peer], None]) -> Callable[[Peer], None]:
    """A server that makes a line, answers one call to itself, and goes on with both."""

    def script(relay: Peer) -> None:
        with relay.welcome_with_lane() as lane:
            line = relay.line(lane, PACK, 1)
            relay.result(relay.read(), "lined")
            try:
                then(relay, line)
            finally:
                line.hang_up()

    return script


def test_calls_go_over_the_line_once_it_is_there(tmp_path: Path) -> None:
    def script(relay: Peer, line: Peer) -> None:
        for _ in range(3):
            own = line.read()
            assert own.kind == frames.CALL
            line.result(own, own.peer)
        relay.read()

    with ScriptedServer(tmp_path, joined(script)) as server, connect(server.path) as airlock:
        until_lined(airlock)
        assert [call(airlock, 1) for _ in range(2)] == [PACK, PACK]
        assert asyncio.run(pair_of(airlock).acall("run", (), {})) == PACK


def test_line_that_ends_during_calls_is_asked_about_and_each_caller_told(tmp_path: Path) -> None:
    def script(relay: Peer, line: Peer) -> None:
        for _ in range(3):
            line.read()
        line.hang_up()
        asked = relay.read()
        assert relay.codec.decode(asked.body) == ["ending", [], {"pack": PACK, "line": 1}]
        relay.send(frames.ERROR, asked.call, DIED, asked.peer)
        relay.result(relay.read(), "over the relay")

    async def both(airlock: Airlock) -> list[Any]:
        calls = [pair_of(airlock).acall("run", (each,), {}) for each in range(2)]
        return await asyncio.gather(*calls, return_exceptions=True)

    with ScriptedServer(tmp_path, joined(script)) as server, connect(server.path) as airlock:
        until_lined(airlock)
        outcomes: list[Any] = []
        others = threading.Thread(target=lambda: outcomes.extend(asyncio.run(both(airlock))))
        others.start()
        with pytest.raises(WorkerDied) as caught:
            call(airlock, 1)
        assert caught.value.exit == "killed by SIGKILL"
        others.join(SECONDS_MAX)
        assert [type(each) for each in outcomes] == [WorkerDied, WorkerDied]
        assert call(airlock, 2) == "over the relay"


def test_line_that_ended_between_calls_is_left_for_the_relay(tmp_path: Path) -> None:
    def script(relay: Peer, line: Peer) -> None:
        line.result(line.read(), "over the line")
        line.hang_up()
        for _ in range(3):
            asked = relay.read()
            if relay.codec.decode(asked.body)[0] == "ending":
                relay.send(frames.ERROR, asked.call, DIED, asked.peer)
            else:
                relay.result(asked, "over the relay")

    with ScriptedServer(tmp_path, joined(script)) as server, connect(server.path) as airlock:
        until_lined(airlock)
        assert [call(airlock, each) for each in range(3)] == ["over the line", "over the relay", "over the relay"]


@pytest.mark.parametrize("caller", ["thread", "coroutine"])
def test_call_whose_line_ends_as_it_is_sent_goes_over_the_relay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caller: str
) -> None:
    def script(relay: Peer, _: Peer) -> None:
        asked = relay.read()
        assert relay.codec.decode(asked.body)[0] == "ending"
        relay.send(frames.ERROR, asked.call, DIED, asked.peer)
        relay.result(relay.read(), "over the relay")

    with ScriptedServer(tmp_path, joined(script)) as server, connect(server.path) as airlock:
        until_lined(airlock)
        line = airlock._lines.pack(PACK).line
        assert line is not None

        class Ending:
            def send(self, *_: Any) -> None:
                # Whoever reads finds the end after the call was noted, and before a byte of it was sent.
                reason = Disconnected("the worker closed the connection")
                threading.Thread(target=line._end, args=(reason,)).start()
                ends = time.monotonic() + SECONDS_MAX
                while line.made.waiting and time.monotonic() < ends:
                    time.sleep(0.001)
                raise BrokenPipeError

            def close(self) -> None:
                link.close()

        link = line.sender._link
        monkeypatch.setattr(line.sender, "_link", Ending())
        if caller == "thread":
            assert call(airlock, 1) == "over the relay"
        else:
            assert asyncio.run(pair_of(airlock).acall("run", (1,), {})) == "over the relay"


def test_server_that_goes_with_the_line_is_the_reason(tmp_path: Path) -> None:
    def script(relay: Peer, line: Peer) -> None:
        line.read()
        relay.send(frames.ERROR, 0, {"code": "server_stopping", "message": "bye"})

    with ScriptedServer(tmp_path, joined(script)) as server, connect(server.path) as airlock:
        until_lined(airlock)
        with pytest.raises((AirlockError, Disconnected)) as caught:
            call(airlock, 1)
        assert caught.value.code in ("server_stopping", "disconnected")


def test_deadline_of_a_call_over_a_line_is_kept_by_its_caller(tmp_path: Path) -> None:
    kinds: list[int] = []

    def script(relay: Peer, line: Peer) -> None:
        for _ in range(2):
            own, cancel = line.read(), line.read()
            kinds.extend([own.kind, cancel.kind])
            assert own.deadline_ms == 50
            assert cancel.call == own.call
            line.result(own, "too late")
        line.result(line.read(), "in time")
        relay.read()

    with ScriptedServer(tmp_path, joined(script)) as server, connect(server.path) as airlock:
        until_lined(airlock)
        with pytest.raises(DeadlineExceeded, match=r"^pack ink: the call took longer than its deadline of 50 ms"):
            call(airlock, 1, timeout=0.05)
        with pytest.raises(DeadlineExceeded):
            asyncio.run(pair_of(airlock).acall("run", (), {}, timeout=0.05))
        assert call(airlock, 2, timeout=SECONDS_MAX) == "in time"
    assert kinds == [frames.CALL, frames.CANCEL] * 2


@pytest.mark.parametrize("names", [2, None])
def test_line_without_its_descriptor_ends_the_connection(tmp_path: Path, names: int | None) -> None:
    def script(relay: Peer) -> None:
        with relay.welcome_with_lane() as lane:
            if names is None:
                relay.send_bytes(frames.build_frame(frames.LINE, PACK, 1))
            else:
                relay.line(lane, PACK, 1, names).hang_up()
            while True:
                relay.read()

    with ScriptedServer(tmp_path, script) as server, connect(server.path) as airlock, pytest.raises(ProtocolError):
        for _ in range(1000):
            call(airlock, 1, timeout=0.01)


def test_closing_ends_calls_over_lines_too(tmp_path: Path) -> None:
    waiting = threading.Event()

    def script(relay: Peer, line: Peer) -> None:
        line.read()
        waiting.set()
        relay.read()

    with ScriptedServer(tmp_path, joined(script)) as server:
        airlock = connect(server.path)
        until_lined(airlock)
        errors: list[BaseException] = []

        def caller() -> None:
            try:
                call(airlock, 1)
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=caller)
        thread.start()
        assert waiting.wait(SECONDS_MAX)
        airlock.close()
        thread.join(SECONDS_MAX)
    assert len(errors) == 1
    assert isinstance(errors[0], Disconnected)


def test_answers_to_coroutines_are_read_by_their_loop_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readers: list[str] = []
    read = Channel.read

    def noted(channel: Channel, *args: Any) -> Any:
        readers.append(threading.current_thread().name)
        return read(channel, *args)

    def script(relay: Peer, line: Peer) -> None:
        while True:
            own = line.read()
            if own.kind == frames.CALL:
                line.result(own, "fine")

    async def calls(airlock: Airlock) -> None:
        for _ in range(50):
            assert await pair_of(airlock).acall("run", (), {}) == "fine"

    with ScriptedServer(tmp_path, joined(script)) as server, connect(server.path) as airlock:
        until_lined(airlock)
        monkeypatch.setattr(Channel, "read", noted)
        asyncio.run(calls(airlock))
        # The keeper had the lead at first; on a slow machine it takes it again now and then.
        assert readers.count("MainThread") >= 40


def until_left(airlock: Airlock) -> None:
    link = airlock._lines.pack(PACK)
    ends = time.monotonic() + SECONDS_MAX
    while link.line is not None and time.monotonic() < ends:
        time.sleep(0.001)
    assert link.line is None


def leaving(relay: Peer, event: str) -> None:
    relay.send(frames.EVENT, 0, [event, {"pack": PACK, "line": 1}])


def test_line_that_the_server_wants_left_takes_no_more_calls_and_the_server_hears_when_those_on_it_are_over(
    tmp_path: Path,
) -> None:
    def script(relay: Peer, line: Peer) -> None:
        first = line.read()
        leaving(relay, "leave_line")
        relay.result(relay.read(), "left")
        relay.result(relay.read(), "over the relay")
        line.result(first, "over the line")
        # In whichever order: the host looks for itself whether the calls are over.
        said = {relay.codec.decode(each.body)[0]: each for each in (relay.read(), relay.read())}
        assert relay.codec.decode(said["left_line"].body) == ["left_line", [], {"pack": PACK, "line": 1}]
        leaving(relay, "use_line")
        relay.result(said["status"], "used")
        line.result(line.read(), "over the line again")

    with ScriptedServer(tmp_path, joined(script)) as server, connect(server.path) as airlock:
        until_lined(airlock)
        outcomes: list[Any] = []
        first = threading.Thread(target=lambda: outcomes.append(call(airlock, 1)))
        first.start()
        assert airlock.status() == "left"
        assert call(airlock, 2) == "over the relay"
        first.join(SECONDS_MAX)
        assert outcomes == ["over the line"]
        assert airlock.status() == "used"
        assert call(airlock, 3) == "over the line again"


def test_what_is_called_for_a_call_on_a_line_that_is_left_goes_over_it(tmp_path: Path) -> None:
    def script(relay: Peer, line: Peer) -> None:
        outer = line.read()
        leaving(relay, "leave_line")
        relay.result(relay.read(), "left")
        line.send_bytes(build_frame(frames.CALL, PACK, 5, line.codec.encode(["ref_call", [1], {}]), parent=outer.call))
        refused = line.read()
        assert (refused.kind, refused.call) == (frames.ERROR, 5)
        line.result(outer, "done")
        assert relay.codec.decode(relay.read().body)[0] == "left_line"

    with ScriptedServer(tmp_path, joined(script)) as server, connect(server.path) as airlock:
        until_lined(airlock)
        outcomes: list[Any] = []
        outer = threading.Thread(target=lambda: outcomes.append(call(airlock, 1)))
        outer.start()
        assert airlock.status() == "left"
        outer.join(SECONDS_MAX)
        assert outcomes == ["done"]


def test_line_that_ends_after_it_was_left_harms_no_call_that_was_made_since(tmp_path: Path) -> None:
    def script(relay: Peer, line: Peer) -> None:
        leaving(relay, "leave_line")
        # In whichever order: the host looks for itself whether the calls are over.
        said, held = sorted((relay.read(), relay.read()), key=lambda frame: frame.has_references)
        assert relay.codec.decode(said.body)[0] == "left_line"
        line.hang_up()
        asked = relay.read()
        assert relay.codec.decode(asked.body)[0] == "ending"
        relay.send(frames.ERROR, asked.call, DIED, asked.peer)
        relay.send(frames.EVENT, 0, ["worker_ended", {"pack": PACK, "number": 1}])
        (number,) = pair_of(hosts[0]).references._exports
        relay.send(frames.CALL, 9, ["ref_call", [number], {}], PACK)
        relay.result(held, relay.codec.decode(relay.read().body))

    hosts: list[Airlock] = []
    with ScriptedServer(tmp_path, joined(script)) as server, connect(server.path) as airlock:
        hosts.append(airlock)
        until_lined(airlock)
        until_left(airlock)
        assert call(airlock, lambda: "still here") == "still here"


def test_what_a_worker_held_whose_line_was_left_is_let_go_when_it_ends(tmp_path: Path) -> None:
    def script(relay: Peer, line: Peer) -> None:
        line.result(line.read(), "held")
        leaving(relay, "leave_line")
        assert relay.codec.decode(relay.read().body)[0] == "left_line"
        line.hang_up()
        relay.read()

    with ScriptedServer(tmp_path, joined(script)) as server, connect(server.path) as airlock:
        until_lined(airlock)
        assert call(airlock, lambda: None) == "held"
        references = pair_of(airlock).references
        assert references.counts == (1, 0)
        ends = time.monotonic() + SECONDS_MAX
        while references.counts != (0, 0) and time.monotonic() < ends:
            time.sleep(0.001)
        assert references.counts == (0, 0)


class _EndedLine:
    """A line whose worker has ended, of which not all was read yet."""

    def __init__(self) -> None:
        self.keeper_called = threading.Event()
        self.lead = self

    def call_keeper(self) -> None:
        self.keeper_called.set()


NEXT_LINE = "the next one's line"


@pytest.mark.parametrize("told_by", [NEXT_LINE, "its own end", "the end of one that had no line"])
def test_what_a_line_brought_before_its_worker_ended_is_read_before_that_counts(told_by: str) -> None:
    ended: list[str] = []

    class Pair:
        on = on_released = None

        def __init__(self, *_: Any, **__: Any) -> None:
            self.on = lambda *_: None

            self.arrays = self

        def goes_by(self, line: object) -> None: ...

        def end(self) -> None:
            ended.append("what the worker held")

        def end_references(self) -> None:
            ended.append("its references")

    first, second = _EndedLine(), _EndedLine()
    connection: Any = SimpleNamespace(has_ended=False)
    link: Any = PackLink(connection, PACK, "ink", pair_class=Pair)  # type: ignore[arg-type]
    link.joined(first, 1)
    number = 1 if told_by == "its own end" else 2
    tell = (lambda: link.joined(second, 2)) if told_by == NEXT_LINE else (lambda: link.worker_ended(number))
    reading = threading.Thread(target=tell)
    reading.start()
    assert first.keeper_called.wait(SECONDS_MAX)
    ended.append("the last result")
    link.line_ended(first)
    reading.join(SECONDS_MAX)
    assert ended[:2] == ["the last result", "its references"]
    assert ended[2:] == ([] if told_by == NEXT_LINE else ["what the worker held"])
    assert link.line is (second if told_by == NEXT_LINE else None)
