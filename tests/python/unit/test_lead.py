"""Who reads: one thread at a time, and one always where something may come that somebody depends on."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue

import pytest

from comfy_airlock.wire.errors import BadRequest
from comfy_airlock.wire.lead import Lead, Seat
from interrupting import Interrupt
from processes import until

SECONDS_MAX = 20


class Stream:
    """What arrives are actions, which whoever reads carries out."""

    def __init__(self) -> None:
        self._arrived: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._reading = threading.Lock()
        self.readers: list[str] = []
        self.lead = Lead(self._read)
        self.keeper = threading.Thread(target=self.lead.keep, name="keeper", daemon=True)
        self.keeper.start()

    def _read(self, seconds: float | None) -> None:
        assert self._reading.acquire(blocking=False), "two threads read at once"
        try:
            action = self._arrived.get(timeout=seconds)
            self.readers.append(threading.current_thread().name)
        except Empty:
            return
        finally:
            self._reading.release()
        action()

    def arrive(self, action: Callable[[], object]) -> None:
        self._arrived.put(action)

    def end(self) -> None:
        self.lead.end()
        self.arrive(lambda: None)
        self.keeper.join(SECONDS_MAX)
        assert not self.keeper.is_alive()


@pytest.fixture
def stream() -> Iterator[Stream]:
    made = Stream()
    yield made
    made.end()


def waits(stream: Stream, seat: Seat, name: str) -> threading.Thread:
    thread = threading.Thread(target=stream.lead.wait, args=(seat,), name=name)
    thread.start()
    return thread


def test_thread_whose_calls_follow_one_another_reads_for_itself(stream: Stream) -> None:
    for _ in range(50):
        seat = Seat()
        stream.arrive(seat.call_back)
        stream.lead.wait(seat)
    # The keeper had the lead at first, and leaves it once it sees that a thread waits.
    assert stream.readers[-40:] == ["MainThread"] * 40


def test_finalizer_on_the_thread_that_reads_neither_reads_nor_ends_its_lead(stream: Stream) -> None:
    seat, seen = Seat(), list[object]()

    def finalize() -> None:
        turn = [threading.get_ident()]
        seen.append(stream.lead.hold(turn, finalize))
        stream.lead.give_up(turn)
        with pytest.raises(BadRequest, match="thread that reads"):
            stream.lead.wait(Seat())
        with ThreadPoolExecutor(1) as pool:
            seen.append(pool.submit(lambda: stream.lead.hold([threading.get_ident()], finalize)).result(SECONDS_MAX))
        seat.call_back()

    stream.arrive(finalize)
    stream.lead.wait(seat)
    assert seen == [False, False]


def test_leader_hands_out_what_is_for_others_and_then_passes_the_lead_on(stream: Stream) -> None:
    seats = [Seat() for _ in range(3)]
    threads = []
    for number, seat in enumerate(seats):
        threads.append(waits(stream, seat, f"thread {number}"))
        until(lambda number=number: len(stream.lead.followers) >= number)  # type: ignore[misc]
    for seat in reversed(seats):
        stream.arrive(seat.call_back)
        until(lambda seat=seat: seat.taken_care_of)  # type: ignore[misc]
    for thread in threads:
        thread.join(SECONDS_MAX)
        assert not thread.is_alive()


def test_keeper_reads_where_nobody_waits(stream: Stream) -> None:
    done = threading.Event()
    stream.arrive(done.set)
    assert done.wait(SECONDS_MAX)
    assert stream.readers == ["keeper"]


def test_keeper_reads_on_after_a_thread_that_waited_long(stream: Stream) -> None:
    seat = Seat()
    thread = waits(stream, seat, "long")
    stream.arrive(lambda: None)
    time.sleep(0.1)
    stream.arrive(seat.call_back)
    thread.join(SECONDS_MAX)
    done = threading.Event()
    stream.arrive(done.set)
    assert done.wait(SECONDS_MAX)
    assert stream.readers[-1] == "keeper"


def test_keeper_reads_at_once_for_what_no_thread_waits_for(stream: Stream) -> None:
    for _ in range(20):
        seat = Seat()
        stream.arrive(seat.call_back)
        stream.lead.wait(seat)
    token = object()
    stream.lead.attend(token)
    done = threading.Event()
    stream.arrive(done.set)
    assert done.wait(SECONDS_MAX)
    assert stream.readers[-1] == "keeper"
    stream.lead.dismiss(token)


def test_keeper_is_called_by_a_thread_that_will_block_elsewhere(stream: Stream) -> None:
    seat = Seat()
    stream.arrive(seat.call_back)
    stream.lead.wait(seat)
    stream.lead.call_keeper()
    done = threading.Event()
    stream.arrive(done.set)
    assert done.wait(SECONDS_MAX)


def test_leader_that_is_interrupted_leaves_the_lead_to_the_next(stream: Stream) -> None:
    class InterruptedError_(Exception):
        pass

    def interrupt() -> None:
        raise InterruptedError_

    follower = Seat()
    started = threading.Event()

    def lead() -> None:
        stream.arrive(lambda: None)
        started.set()
        with pytest.raises(InterruptedError_):
            stream.lead.wait(Seat())

    leader = threading.Thread(target=lead, name="leader")
    leader.start()
    assert started.wait(SECONDS_MAX)
    until(lambda: stream.lead.turns and not stream.lead.followers)
    time.sleep(0.05)
    behind = waits(stream, follower, "follower")
    until(lambda: follower in stream.lead.followers)
    stream.arrive(interrupt)
    stream.arrive(follower.call_back)
    for thread in (leader, behind):
        thread.join(SECONDS_MAX)
        assert not thread.is_alive()


def test_wait_ends_in_time_for_the_leader_and_for_its_followers(stream: Stream) -> None:
    others = Seat()
    leader = waits(stream, others, "leader")
    until(lambda: stream.lead.threads_waited == 1)
    for _ in range(3):
        seat = Seat()
        stream.lead.wait(seat, time.monotonic() + 0.05)
        assert not seat.taken_care_of
    stream.arrive(others.call_back)
    leader.join(SECONDS_MAX)
    stream.lead.wait(Seat(), time.monotonic() + 0.05)


def test_after_the_end_nobody_reads_and_who_waits_is_called_back() -> None:
    stream = Stream()
    stream.end()
    seat = Seat()
    thread = waits(stream, seat, "late")
    until(lambda: seat in stream.lead.followers)
    seat.call_back()
    thread.join(SECONDS_MAX)
    assert not thread.is_alive()


def test_seat_that_was_taken_care_of_before_waits_for_nothing(stream: Stream) -> None:
    seat = Seat()
    seat.call_back()
    stream.lead.wait(seat)
    assert stream.readers == []


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_many_threads_and_coroutines_all_get_what_is_theirs(stream: Stream, seed: int) -> None:
    """Threads that wait, and things that nobody's thread waits for, in a random mixture; nothing is ever left lying."""
    print(f"seed {seed}")
    outstanding: SimpleQueue[Callable[[], object]] = SimpleQueue()

    def stop() -> None:
        """The last that arrives."""

    def answer() -> None:
        action = None
        while action is not stop:
            action = outstanding.get()
            stream.arrive(action)

    def calls(number: int) -> None:
        chance = random.Random(seed * 100 + number)
        for _ in range(200):
            if chance.random() < 0.3:
                done = threading.Event()
                token = object()
                outstanding.put(done.set)
                stream.lead.attend(token)
                assert done.wait(SECONDS_MAX)
                stream.lead.dismiss(token)
            else:
                seat = Seat()
                outstanding.put(seat.call_back)
                stream.lead.wait(seat)
            if chance.random() < 0.02:
                time.sleep(chance.random() * 0.05)

    answers = threading.Thread(target=answer)
    answers.start()
    with ThreadPoolExecutor(8) as pool:
        for finished in [pool.submit(calls, number) for number in range(8)]:
            finished.result(SECONDS_MAX * 3)
    outstanding.put(stop)
    answers.join(SECONDS_MAX)


def test_an_interrupted_turn_leaves_the_lead_free_and_those_who_wait_told(monkeypatch: pytest.MonkeyPatch) -> None:
    lead = Lead(lambda _: None)
    told: list[object] = []
    pass_on = lead.pass_on

    def interrupt() -> None:
        # As it is entered the first time: who waits was not told yet.
        monkeypatch.setattr(lead, "pass_on", lambda: (told.append(dict(lead.turns)), pass_on()))
        raise Interrupt

    monkeypatch.setattr(lead, "pass_on", interrupt)
    lead.wanted.add(lead)
    with pytest.raises(Interrupt):
        lead.hold([0], lambda: None)
    assert told == [{}]


def test_an_interrupt_of_what_a_leader_reads_leaves_the_lead_free() -> None:
    def interrupt(_: float | None) -> None:
        raise Interrupt

    lead = Lead(interrupt)
    with pytest.raises(Interrupt):
        lead.wait(Seat())
    assert not lead.turns
    with pytest.raises(Interrupt):
        lead.wait(Seat())
