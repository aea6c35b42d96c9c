"""A connection against a scripted server: every call ends exactly once, whatever the server does."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from comfy_airlock import Airlock, Pack, Progress, connect
from comfy_airlock.wire import frame as frames
from comfy_airlock.wire.codec import Codec
from comfy_airlock.wire.connection import Connection
from comfy_airlock.wire.errors import (
    AirlockError,
    BadRequest,
    Cancelled,
    DeadlineExceeded,
    Disconnected,
    LimitExceeded,
    ProtocolError,
    Unauthorized,
    ValueInvalid,
    WorkerDied,
)
from comfy_airlock.wire.frame import Frame, build_frame
from comfy_airlock.wire.incoming import IncomingCall
from comfy_airlock.wire.recipients import PendingCall
from interrupting import Interrupt
from scripted_server import OPENED, WELCOME, Peer, ScriptedServer, pair_of

SECONDS_MAX = 20
Script = Callable[[Peer], None]


def served(folder: Path, script: Script) -> ScriptedServer:
    return ScriptedServer(folder, script)


def welcomed(then: Script) -> Script:
    def script(peer: Peer) -> None:
        peer.welcome()
        then(peer)

    return script


def echo(peer: Peer) -> None:
    """Answers each call with its arguments until the client leaves."""
    peer.welcome()
    while True:
        call = peer.read()
        if call.kind == frames.CALL:
            peer.result(call, tuple(peer.codec.decode(call.body)))


def until_gone(peer: Peer) -> None:
    while True:
        peer.read()


def call(airlock: Airlock, *args: Any, **options: Any) -> Any:
    return pair_of(airlock).call("run", args, {}, **options)


def test_hello_says_who_connects_and_the_welcome_is_kept(tmp_path: Path) -> None:
    hellos: list[Any] = []

    def script(peer: Peer) -> None:
        hellos.append(peer.codec.decode(peer.welcome().body))
        until_gone(peer)

    with served(tmp_path, script) as server:
        connection = Connection(server.path, {"role": "worker", "token": "t"}, Codec())
        assert connection.welcome == WELCOME
        connection.close()
    assert hellos == [
        {
            "protocol": {"min": 1, "max": 1},
            "features": ["line", "simplex", "credit", "segments"],
            "pid": os.getpid(),
            "role": "worker",
            "token": "t",
        }
    ]


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (
            lambda peer: (peer.read(), peer.send(frames.ERROR, 0, {"code": "unauthorized", "message": "no"})),
            Unauthorized,
        ),
        (lambda peer: (peer.read(), peer.send(frames.ERROR, 0, ["no map"])), ProtocolError),
        (lambda peer: (peer.read(), peer.send(frames.RESULT, 0, {})), ProtocolError),
        (lambda peer: (peer.read(), peer.send(frames.WELCOME, 0, [1])), ProtocolError),
        (lambda peer: (peer.read(), peer.send_bytes(b"HTTP/1.1 400 Bad\r\n")), AirlockError),
        (lambda peer: (peer.read(), peer.send_bytes(build_frame(frames.WELCOME, 0, 0, b"\xc1"))), ValueInvalid),
        (lambda peer: peer.read(), Disconnected),
        (lambda peer: None, Disconnected),
    ],
    ids=[
        "error",
        "error without sense",
        "result",
        "welcome without sense",
        "other protocol",
        "garbage",
        "eof",
        "reset",
    ],
)
def test_anything_but_a_welcome_is_an_error_and_leaves_nothing(tmp_path: Path, script: Any, kind: Any) -> None:
    with served(tmp_path, script) as server, pytest.raises(kind):
        connect(server.path)


def test_nobody_at_the_path_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(Disconnected, match="no server answers") as caught:
        connect(str(tmp_path / "nobody"))
    assert "airlock serve" in (caught.value.hint or "")


def test_path_that_no_socket_can_have_is_refused() -> None:
    with pytest.raises(BadRequest, match="108|107"):
        connect("/tmp/" + "x" * 103)


def test_call_and_answer(tmp_path: Path) -> None:
    with served(tmp_path, echo) as server, connect(server.path, name="me") as airlock:
        assert call(airlock, (1, 2), "x") == ("run", [(1, 2), "x"], {})


def test_large_values_pass_in_both_directions(tmp_path: Path) -> None:
    large = os.urandom(3_000_000)
    with served(tmp_path, echo) as server, connect(server.path) as airlock:
        assert call(airlock, large)[1] == [large]


def test_frames_that_came_with_the_welcome_are_not_lost(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    ended = threading.Event()

    class Events:
        def called(self, call: IncomingCall) -> None:
            seen.append((call.peer, call.number))

        def received(self, frame: object) -> None:
            raise AssertionError(frame)

        def gave_up(self) -> None:
            raise AssertionError

        def laden(self, frame: object) -> bytes:
            raise AssertionError(frame)

        def ended(self, reason: AirlockError, unanswered: list[PendingCall]) -> None:
            ended.set()

    def script(peer: Peer) -> None:
        peer.read()
        both = [build_frame(frames.WELCOME, 0, 0, peer.codec.encode(WELCOME)), build_frame(frames.CALL, 3, 9, b"\xc0")]
        peer.send_bytes(b"".join(both))

    with served(tmp_path, script) as server:
        connection = Connection(server.path, {}, Codec())
        connection.attach(Events(), connection.early)
        connection.keep("airlock-keeper")
        assert ended.wait(SECONDS_MAX)
        connection.close()
    assert seen == [(3, 9)]


def test_answers_out_of_order_reach_their_own_callers(tmp_path: Path) -> None:
    count = 32

    def script(peer: Peer) -> None:
        for _ in range(3):
            waiting = [peer.read() for _ in range(count)]
            for each in reversed(waiting):
                peer.result(each, peer.codec.decode(each.body)[1][0])
        until_gone(peer)

    wrong: list[Any] = []
    with served(tmp_path, welcomed(script)) as server, connect(server.path) as airlock:
        meet = threading.Barrier(count)

        def caller(own: int) -> None:
            for turn in range(3):
                meet.wait()
                if (got := call(airlock, (own, turn))) != (own, turn):
                    wrong.append(got)

        threads = [threading.Thread(target=caller, args=(each,), name="airlock-test") for each in range(count)]
        for each in threads:
            each.start()
        for each in threads:
            each.join(SECONDS_MAX)
    assert wrong == []


def test_end_of_the_connection_fails_every_pending_call_once(tmp_path: Path) -> None:
    count = 16

    def script(peer: Peer) -> None:
        for _ in range(count):
            peer.read()

    failures: list[BaseException] = []
    with served(tmp_path, welcomed(script)) as server, connect(server.path) as airlock:

        def caller() -> None:
            with pytest.raises(Disconnected) as caught:
                call(airlock, 1)
            failures.append(caught.value)

        threads = [threading.Thread(target=caller, name="airlock-test") for _ in range(count)]
        for each in threads:
            each.start()
        for each in threads:
            each.join(SECONDS_MAX)
        assert len(failures) == count
        # Each caller has an exception of its own: a shared one would collect all their tracebacks.
        assert len(set(map(id, failures))) == count
        with pytest.raises(Disconnected):
            call(airlock, 2)


def test_error_for_the_connection_is_the_reason_that_calls_get(tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.read()
        peer.send(frames.ERROR, 0, {"code": "limit_exceeded", "message": "too much queued"})
        until_gone(peer)

    with served(tmp_path, welcomed(script)) as server, connect(server.path) as airlock:
        for _ in range(2):
            with pytest.raises(AirlockError, match="too much queued") as caught:
                call(airlock, 1)
            assert caught.value.code == "limit_exceeded"


@pytest.mark.parametrize(
    "garbage",
    [b"\xff" * 64, struct.pack("<IBBHII", 0, 99, 0, 0, 0, 0), build_frame(frames.ERROR, 0, 0, b"\xc1")],
    ids=["noise", "unknown kind", "error that is no value"],
)
def test_server_that_breaks_the_protocol_ends_the_connection_and_its_calls(tmp_path: Path, garbage: bytes) -> None:
    def script(peer: Peer) -> None:
        peer.read()
        peer.send_bytes(garbage)
        until_gone(peer)

    with served(tmp_path, welcomed(script)) as server, connect(server.path) as airlock, pytest.raises(AirlockError):
        call(airlock, 1)


def test_answer_that_is_no_value_fails_its_call_alone(tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.send_bytes(build_frame(frames.RESULT, 7, peer.read().call, b"\xc1"))
        peer.send_bytes(build_frame(frames.ERROR, 7, peer.read().call, b"\xc1"))
        peer.send(
            frames.ERROR, peer.read().call, {"code": "remote_exception", "message": "m", "exception": {"args": 5}}
        )
        peer.result(peer.read(), "fine")

    with served(tmp_path, welcomed(script)) as server, connect(server.path) as airlock:
        for _ in range(3):
            with pytest.raises(ValueInvalid):
                call(airlock, 1)
        assert call(airlock, 2) == "fine"


def test_answers_that_nobody_asked_for_are_dropped(tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        own = peer.read()
        for number in (own.call + 1, 12345):
            peer.send(frames.RESULT, number, "stray")
            peer.send(frames.PROGRESS, number, "stray")
        peer.send(frames.CALL, 5, "for nobody")
        peer.result(own, "own")
        peer.result(own, "again")
        # What nobody was to be called for is answered, too: before the next call, or after it.
        asked = [peer.read(), peer.read()]
        assert {each.kind for each in asked} == {frames.CALL, frames.ERROR}
        peer.result(next(each for each in asked if each.kind == frames.CALL), "next")

    with served(tmp_path, welcomed(script)) as server, connect(server.path) as airlock:
        assert [call(airlock, 1), call(airlock, 2)] == ["own", "next"]


def test_errors_arrive_as_their_class(tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        worker_died = {
            "code": "worker_died",
            "message": "gone",
            "pack": "ink",
            "exit": "killed by SIGKILL",
            "log": "oops",
        }
        peer.send(frames.ERROR, peer.read().call, worker_died)
        remote = {"types": ["builtins:KeyError"], "message": "'k'", "traceback": "T", "args": ["k"], "state": {}}
        peer.send(frames.ERROR, peer.read().call, {"code": "remote_exception", "message": "m", "exception": remote})

    with served(tmp_path, welcomed(script)) as server, connect(server.path) as airlock:
        with pytest.raises(WorkerDied, match="oops") as caught:
            call(airlock, 1)
        assert (caught.value.pack, caught.value.exit) == ("ink", "killed by SIGKILL")
        with pytest.raises(KeyError) as raised:
            call(airlock, 1)
        assert raised.value.args == ("k",)


PROGRESS = {"pack": "ink", "stage": "installing", "message": "numpy"}


def progressing(peer: Peer) -> None:
    peer.welcome()
    peer.send(frames.RESULT, peer.read().call, OPENED)
    while True:
        own = peer.read()
        if own.kind == frames.CALL:
            peer.send(frames.PROGRESS, own.call, PROGRESS)
            peer.result(own, "done")


def test_progress_comes_before_the_answer(tmp_path: Path) -> None:
    said: list[Progress] = []
    with served(tmp_path, progressing) as server, connect(server.path) as airlock:
        pack = airlock.open("/ink").options(on_progress=said.append)
        assert pack.call("Node") == "done"
        assert said == [Progress("ink", "installing", "numpy")]


def fail(_: Progress) -> None:
    raise RuntimeError("no screen")


def acall(pack: Pack) -> Any:
    """Calls in a coroutine; what reaches the event loop's own handler of exceptions is an error too."""
    unhandled: list[Any] = []

    async def main() -> Any:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
        return await pack.acall("Node")

    try:
        return asyncio.run(main())
    finally:
        assert unhandled == []


@pytest.mark.parametrize("call_node", [lambda pack: pack.call("Node"), acall], ids=["call", "acall"])
def test_listener_that_raises_fails_its_own_call_and_not_the_connection(tmp_path: Path, call_node: Any) -> None:
    with served(tmp_path, progressing) as server, connect(server.path) as airlock:
        pack = airlock.open("/ink")
        with pytest.raises(RuntimeError, match="no screen"):
            call_node(pack.options(on_progress=fail))
        assert call_node(pack) == "done"


@pytest.mark.parametrize("call_node", [lambda pack: pack.call("Node"), acall], ids=["call", "acall"])
def test_listener_that_raises_hears_the_rest_and_its_first_fault_is_raised(tmp_path: Path, call_node: Any) -> None:
    heard: list[Progress] = []

    def script(peer: Peer) -> None:
        peer.send(frames.RESULT, peer.read().call, OPENED)
        own = peer.read()
        for _ in range(3):
            peer.send(frames.PROGRESS, own.call, PROGRESS)
        peer.send(frames.ERROR, own.call, {"code": "cancelled", "message": "stopped"})
        until_gone(peer)

    def fail_each_time(progress: Progress) -> None:
        heard.append(progress)
        raise RuntimeError(f"fault {len(heard)}")

    with served(tmp_path, welcomed(script)) as server, connect(server.path) as airlock:
        with pytest.raises(RuntimeError, match="fault 1"):
            call_node(airlock.open("/ink").options(on_progress=fail_each_time))
    assert len(heard) == 3


def test_progress_in_a_coroutine_comes_on_its_loop(tmp_path: Path) -> None:
    said: list[Any] = []

    async def main(airlock: Airlock) -> None:
        pack = (await airlock.aopen("/ink")).options(
            on_progress=lambda each: said.append((each, threading.get_ident()))
        )
        assert await pack.acall("Node") == "done"

    with served(tmp_path, progressing) as server, connect(server.path) as airlock:
        asyncio.run(main(airlock))
    assert said == [(Progress("ink", "installing", "numpy"), threading.get_ident())]


def test_many_coroutines_call_at_once(tmp_path: Path) -> None:
    async def main(airlock: Airlock) -> list[Any]:
        return await asyncio.gather(*(pair_of(airlock).acall("run", (each,), {}) for each in range(50)))

    with served(tmp_path, echo) as server, connect(server.path) as airlock:
        assert [each[1] for each in asyncio.run(main(airlock))] == [[each] for each in range(50)]


def test_timeout_travels_as_the_calls_deadline(tmp_path: Path) -> None:
    seen: list[int | None] = []

    def script(peer: Peer) -> None:
        for _ in range(2):
            own = peer.read()
            seen.append(own.deadline_ms)
            peer.send(frames.ERROR, own.call, {"code": "deadline_exceeded", "message": "late"})

    with served(tmp_path, welcomed(script)) as server, connect(server.path) as airlock:
        for timeout in (1.5, None):
            with pytest.raises(DeadlineExceeded):
                call(airlock, 1, timeout=timeout)
    assert seen == [1500, None]


def test_cancelled_coroutine_cancels_its_call(tmp_path: Path) -> None:
    cancels: list[tuple[int, int]] = []

    def script(peer: Peer) -> None:
        own = peer.read()
        cancel = peer.read()
        cancels.append((cancel.kind, cancel.call - own.call))
        # The answer crosses the cancel, and is for nobody.
        peer.result(own, "late")
        peer.result(peer.read(), "next")

    async def main(airlock: Airlock) -> Any:
        task = asyncio.create_task(pair_of(airlock).acall("run", (), {}))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await pair_of(airlock).acall("run", (), {})

    with served(tmp_path, welcomed(script)) as server, connect(server.path) as airlock:
        assert asyncio.run(main(airlock)) == "next"
    assert cancels == [(frames.CANCEL, 0)]


def test_loop_closed_during_a_call_harms_nobody_else(tmp_path: Path) -> None:
    release = threading.Event()

    def script(peer: Peer) -> None:
        first = peer.read()
        assert release.wait(SECONDS_MAX)
        peer.send(frames.PROGRESS, first.call, PROGRESS)
        peer.result(first, "too late")
        while True:
            own = peer.read()
            if own.kind == frames.CALL:
                peer.result(own, "fine")

    with served(tmp_path, welcomed(script)) as server, connect(server.path) as airlock:
        loop = asyncio.new_event_loop()
        task = loop.create_task(pair_of(airlock).acall("run", (), {}, on_progress=print))
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()
        release.set()
        assert call(airlock, 1) == "fine"
        # Left where it awaits, which is what this is about.
        setattr(task, "_log_destroy_pending", False)
        del task


def raise_interrupted(*_: Any) -> None:
    raise Interrupt


@pytest.fixture
def interrupting_signal() -> Iterator[None]:
    """SIGUSR1 raises in the main thread."""
    before = signal.signal(signal.SIGUSR1, raise_interrupted)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.usefixtures("interrupting_signal")
def test_interrupt_of_a_thread_that_reads_for_all_cancels_its_own_call_alone(tmp_path: Path) -> None:
    main_thread = threading.get_ident()
    kinds: list[int] = []

    def script(peer: Peer) -> None:
        others, own = peer.read(), peer.read()
        kinds.append(own.kind)
        time.sleep(0.05)  # Until it sleeps in the middle of receiving; where it doesn't yet, the outcome is the same.
        signal.pthread_kill(main_thread, signal.SIGUSR1)
        kinds.append(peer.read().kind)
        peer.result(others, "undisturbed")
        peer.result(peer.read(), "next")

    with served(tmp_path, welcomed(script)) as server, connect(server.path) as airlock:
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(call, airlock, 1)
            time.sleep(0.05)
            with pytest.raises(Interrupt):
                call(airlock, 2)
            assert other.result(SECONDS_MAX) == "undisturbed"
        assert call(airlock, 3) == "next"
    assert kinds == [frames.CALL, frames.CANCEL]


@pytest.mark.usefixtures("interrupting_signal")
def test_interrupt_while_what_came_is_handed_out_ends_the_connection_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(tmp_path, echo) as server, connect(server.path) as airlock:
        assert call(airlock, 1)
        received = airlock._connection.received

        def interrupt_main_thread(count: int) -> None:
            if threading.current_thread() is threading.main_thread():
                raise Interrupt
            received(count)

        monkeypatch.setattr(airlock._connection, "received", interrupt_main_thread)
        with pytest.raises(Interrupt):
            # The keeper may be the one that reads, on a slow machine.
            ends = time.monotonic() + SECONDS_MAX
            while time.monotonic() < ends:
                call(airlock, 2)
        with pytest.raises(Disconnected, match="reading was interrupted"):
            call(airlock, 3)


def test_signal_in_the_middle_of_a_message_ends_the_connection_and_says_so(tmp_path: Path) -> None:
    main_thread = threading.get_ident()
    first_waits = threading.Event()
    closed: list[bool] = []

    def script(peer: Peer) -> None:
        peer.read()
        first_waits.set()
        # The next message has begun, and is larger than all that the kernel takes while nobody reads on.
        assert len(peer.read_bytes(1)) == 1
        signal.pthread_kill(main_thread, signal.SIGUSR1)
        while peer.read_bytes(1 << 16):
            pass
        closed.append(True)

    def interrupt(*_: object) -> None:
        raise Interrupt

    failures: list[str] = []

    def first(airlock: Airlock) -> None:
        with pytest.raises(Disconnected) as caught:
            call(airlock, "first")
        failures.append(caught.value.message)

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with served(tmp_path, welcomed(script)) as server, connect(server.path) as airlock:
            waiting = threading.Thread(target=first, args=(airlock,), name="airlock-test")
            waiting.start()
            assert first_waits.wait(SECONDS_MAX)
            with pytest.raises(Interrupt):
                call(airlock, bytes(15_000_000))
            waiting.join(SECONDS_MAX)
            with pytest.raises(Disconnected, match="interrupted in the middle"):
                call(airlock, "after")
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(failures) == 1 and "interrupted in the middle" in failures[0]
    assert closed == [True]


class InterruptedSocket:
    """Sends some bytes, and is then interrupted once."""

    def __init__(self, real: socket.socket, count: int) -> None:
        self._real = real
        self._left: int | None = count

    def send(self, data: memoryview, flags: int = 0) -> int:
        if self._left is None:
            return self._real.send(data, flags)
        if self._left == 0:
            self._left = None
            raise Interrupt
        sent = self._real.send(data[: self._left], flags)
        self._left -= sent
        return sent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def test_interrupt_before_anything_was_sent_leaves_the_connection_usable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(tmp_path, echo) as server, connect(server.path) as airlock:
        monkeypatch.setattr(airlock._connection.sender, "_link", InterruptedSocket(airlock._connection.sender._link, 0))
        with pytest.raises(Interrupt):
            call(airlock, "never")
        assert call(airlock, "fine")[1] == ["fine"]


@pytest.mark.parametrize("count", [1, 15, 16, 20])
def test_interrupt_after_any_byte_was_sent_ends_the_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    with served(tmp_path, echo) as server, connect(server.path) as airlock:
        monkeypatch.setattr(
            airlock._connection.sender, "_link", InterruptedSocket(airlock._connection.sender._link, count)
        )
        with pytest.raises(Interrupt):
            call(airlock, "half")
        with pytest.raises(Disconnected, match="interrupted in the middle"):
            call(airlock, "after")


def test_message_over_the_limit_is_refused_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(tmp_path, echo) as server, connect(server.path) as airlock:
        monkeypatch.setattr("comfy_airlock.wire.frame.FRAME_BYTES_MAX", 1000)
        with pytest.raises(LimitExceeded, match=r"10\d\d bytes is over the limit of 1000") as caught:
            call(airlock, bytes(1000))
        assert caught.value.code == "limit_exceeded"
        assert "smaller batch" in (caught.value.hint or "")
        with pytest.raises(LimitExceeded):
            asyncio.run(acall_peer(airlock, bytes(1000)))
        assert call(airlock, bytes(500))[1] == [bytes(500)]
        assert airlock._connection.made.waiting == {}


async def acall_peer(airlock: Airlock, value: Any) -> Any:
    return await pair_of(airlock).acall("run", (value,), {})


def test_close_fails_calls_under_way_and_may_be_repeated(tmp_path: Path) -> None:
    with served(tmp_path, welcomed(until_gone)) as server:
        airlock = connect(server.path)
        closer = threading.Timer(0.1, airlock.close)
        closer.name = "airlock-test"
        closer.start()
        with pytest.raises(Disconnected, match="closed"):
            call(airlock, 1)
        closer.join(SECONDS_MAX)
        airlock.close()
        with pytest.raises(Disconnected):
            call(airlock, 1)


def test_value_that_cannot_cross_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    with served(tmp_path, echo) as server, connect(server.path) as airlock:
        with pytest.raises(TypeError, match=r"value\[1\]\[0\]"):
            call(airlock, threading)
        assert call(airlock, 1)[1] == [1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_forked_child_is_refused_and_the_parent_goes_on(tmp_path: Path) -> None:
    with served(tmp_path, echo) as server, connect(server.path) as airlock:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                call(airlock, 1)
            except Disconnected as error:
                airlock.close()
                code = 0 if "forked" in str(error) else 2
            finally:
                os._exit(code)
        deadline = time.monotonic() + SECONDS_MAX
        while (done := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert done == (child, 0)
        assert call(airlock, 1)[1] == [1]


def test_numbers_of_calls_wrap_around_those_in_use(tmp_path: Path) -> None:
    numbers: list[int] = []

    def script(peer: Peer) -> None:
        for _ in range(3):
            own = peer.read()
            numbers.append(own.call)
            peer.result(own, None)
        until_gone(peer)

    with served(tmp_path, welcomed(script)) as server, connect(server.path) as airlock:
        connection = airlock._connection
        connection.made.numbers = itertools.count(0xFFFF_FFFF)
        connection.made.waiting[1] = _Nobody()
        for _ in range(3):
            call(airlock, 1)
        connection.made.waiting.pop(1)
    assert numbers == [0xFFFF_FFFF, 2, 3]


class _Nobody:
    was_unsent = False
    may_be_sent = False

    def progressed(self, frame: Frame) -> None: ...

    def nested(self, call: IncomingCall) -> None: ...

    def answered(self, frame: Frame) -> None: ...

    def failed(self, error: AirlockError) -> None: ...


@pytest.mark.parametrize(
    ("more", "is_held"), [({"delivered": False}, False), ({"delivered": True}, True), ({}, True)], ids=repr
)
@pytest.mark.parametrize("is_async", [False, True], ids=["call", "acall"])
def test_references_in_a_call_are_taken_back_where_it_reached_nobody_and_only_there(
    tmp_path: Path, more: dict[str, Any], is_held: bool, is_async: bool
) -> None:
    def script(peer: Peer) -> None:
        own = peer.read()
        assert own.has_references
        peer.send(frames.ERROR, own.call, {"code": "worker_start_failed", "message": "no worker", **more}, own.peer)
        until_gone(peer)

    def held() -> str:
        return "held by nobody"

    with served(tmp_path, welcomed(script)) as server, connect(server.path) as airlock:
        with pytest.raises(AirlockError, match="no worker") as caught:
            asyncio.run(acall_peer(airlock, held)) if is_async else call(airlock, held)
        # A call that this one is made for did reach its callee.
        assert "delivered" not in caught.value.to_wire()
        assert pair_of(airlock).references.counts[0] == int(is_held)


def test_cancelled_error_of_the_server_is_raised_as_such(tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.send(frames.ERROR, peer.read().call, {"code": "cancelled", "message": "stopped"})

    with served(tmp_path, welcomed(script)) as server, connect(server.path) as airlock, pytest.raises(Cancelled):
        call(airlock, 1)
