"""Cycles of references over a host and its workers, simulated in one process: what is freed, when, and what is not."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_airlock.calls.remote import handle_of
from comfy_airlock.calls.service import Service
from comfy_airlock.calls.survey import take_survey
from comfy_airlock.host import collector as collector_module
from comfy_airlock.host.collector import Collector
from comfy_airlock.wire.errors import BadRequest, Disconnected, ReferenceGone, ValueUnsupported
from comfy_airlock.wire.incoming import IncomingCall
from comfy_airlock.wire.limits import CYCLES_QUIET_SECONDS, CYCLES_WAIT_SECONDS_MAX
from simulated import Side, Thing, join


def over(*sides: Side) -> Collector:
    return Collector(lambda: list(sides))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def tie(side: Side) -> tuple[weakref.ref[Thing], weakref.ref[Thing]]:
    """An object of the host's and one of the worker's that hold each other, and that nothing else holds."""
    mine, theirs = Thing(), Thing()
    mine.held.append(side.far.give(theirs))
    theirs.held.append(side.give(mine))
    return weakref.ref(mine), weakref.ref(theirs)


def test_cycle_of_two_is_freed_once() -> None:
    side = join("one")
    mine, theirs = tie(side)
    gc.collect()
    assert (mine() is None, theirs() is None) == (False, False)
    collector = over(side)
    assert collector.collect() == 1
    assert (mine(), theirs()) == (None, None)
    assert side.references.counts == side.far.references.counts == (0, 0)
    assert collector.collect() == 0


@pytest.mark.parametrize("where", ["host", "worker"])
def test_cycle_that_either_side_holds_stays(where: str) -> None:
    side = join("one")
    mine, theirs = tie(side)
    held = (mine if where == "host" else theirs)()
    assert over(side).collect() == 0
    assert held is not None
    assert held.held[0] is not None
    handle_of(held.held[0]).check()
    del held
    assert over(side).collect() == 1
    assert (mine(), theirs()) == (None, None)


def test_cycle_over_two_packs_is_freed() -> None:
    one, two = join("one"), join("two")
    first, second = Thing(), Thing()
    seen = [weakref.ref(first), weakref.ref(second)]
    first.held.append(one.give(two.far.give(second)))
    second.held.append(two.give(one.far.give(first)))
    del first, second
    # With one of the two at work nothing is known of what it holds.
    two.is_at_work = True
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collector_module, "SURVEY_SECONDS_MAX", 0.01)
        assert over(one, two).collect() == 0
    two.is_at_work = False
    # The second may be gone by the time that the first was given back.
    assert over(one, two).collect() in (1, 2)
    assert [each() for each in seen] == [None, None]


def test_what_hangs_on_a_cycle_dies_of_its_own_accord_and_can_still_say_good_bye() -> None:
    side = join("one")
    said: list[object] = []

    class Closing(Thing):
        def __del__(self) -> None:
            # Not on the cycle, so it can still be used; what is, can't.
            handle_of(self.held[1]).check()
            with pytest.raises(ReferenceGone, match="cycle"):
                handle_of(self.held[0]).check()
            said.append("closed")

    mine, theirs, aside = Closing(), Thing(), Thing()
    gone = weakref.ref(aside)
    mine.held = [side.far.give(theirs), side.far.give(aside)]
    theirs.held.append(side.give(mine))
    del mine, theirs, aside
    assert over(side).collect() == 1
    assert said == ["closed"]
    assert gone() is None


class Message(NamedTuple):
    """A way in which something may still be on its way."""

    sender: Callable[[Side], Side]
    is_read: bool


ON_THEIR_WAY = {
    "to the worker": Message(lambda side: side, False),
    "to the worker, which has not looked at it": Message(lambda side: side, True),
    "to the host": Message(lambda side: side.far, False),
    "to the host, which has not looked at it": Message(lambda side: side.far, True),
}


@pytest.mark.parametrize("message", ON_THEIR_WAY.values(), ids=list(ON_THEIR_WAY))
@pytest.mark.parametrize("brings", ["own", "home"])
def test_cycle_that_is_on_its_way_is_not_freed(message: Message, brings: str) -> None:
    side = join("one")
    mine, theirs = tie(side)
    sender = message.sender(side)
    own = mine() if sender is side else theirs()
    assert own is not None
    # The sender lets go as soon as it has sent its own object, or the stand-in that the other side knows as its own.
    body = sender.send(own if brings == "own" else own.held[0])
    del own
    arrived = sender.far.receive(body) if message.is_read else None
    collector = over(side)
    assert collector.collect() == 0
    taken = sender.far.codec.decode(sender.far.receive(body) if arrived is None else arrived)
    del arrived
    assert collector.collect() == 0
    if brings == "own":
        handle_of(taken).check()
    else:
        handle_of(taken.held[0]).check()
    del taken
    assert collector.collect() == 1
    assert (mine(), theirs()) == (None, None)


@pytest.mark.parametrize("by", ["host", "worker"])
def test_what_is_sent_between_the_surveys_stops_the_freeing(by: str) -> None:
    side = join("one")
    mine, theirs = tie(side)
    held: list[Any] = []

    class Late(Side):
        def answer(self, value: Any) -> None:
            # The worker was surveyed; then one of the two comes to light again.
            owner = mine() if by == "host" else theirs()
            held.append((side if by == "host" else side.far).give(owner))
            del owner
            super().answer(value)

    side.__class__ = Late
    assert over(side).collect() == 0
    handle_of(held[0]).check()
    side.__class__ = Side
    held.clear()
    assert over(side).collect() == 1
    assert (mine(), theirs()) == (None, None)


def test_stand_in_that_is_received_after_it_was_given_back_is_another() -> None:
    side = join("one")
    mine, theirs = tie(side)
    kept = theirs()
    # Held by the worker, but by nothing that leads to the host's object: only so it could still be sent.
    assert kept is not None
    old = side.far.give(kept)
    traffic = side.references.traffic()
    assert traffic is not None
    assert side.references.give_back([handle_of(old).number], traffic._replace(sent=traffic.sent + 1)) == 0
    handle_of(old).check()
    assert side.references.give_back([handle_of(old).number], traffic) == 1
    new = side.far.give(kept)
    assert new is not old
    handle_of(new).check()
    with pytest.raises(ReferenceGone):
        side.send(old)
    assert side.send([new])
    del mine


def test_worker_that_ends_in_between_changes_nothing() -> None:
    side = join("one")
    mine, theirs = tie(side)

    class Dying(Side):
        def answer(self, value: Any) -> None:
            self.end()
            super().answer(value)

    side.__class__ = Dying
    assert over(side).collect() == 0
    gc.collect()
    assert mine() is None or side.references.counts == (0, 0)
    del theirs


def test_survey_of_a_worker_that_has_ended_says_nothing_of_the_next() -> None:
    one, two = join("one"), join("two")
    tie(one)
    mine, theirs = tie(two)
    held: list[Any] = []

    class Dying(Side):
        def answer(self, value: Any) -> None:
            self.end()
            # The next one has exchanged as much by now, and holds what leads to the other worker's cycle.
            held.extend([self.give(mine()), self.far.give(Thing())])
            super().answer(value)

    one.__class__ = Dying
    assert over(one, two).collect() == 0
    gc.collect()
    still = mine()
    assert still is not None
    handle_of(still.held[0]).check()
    del theirs


def test_what_is_sent_just_before_the_host_is_surveyed_stops_the_freeing(monkeypatch: pytest.MonkeyPatch) -> None:
    side = join("one")
    mine, _ = tie(side)
    held: list[Any] = []

    def late(sides: Any) -> Any:
        held.append(side.give(mine()))
        return take_survey(sides)

    monkeypatch.setattr(collector_module, "take_survey", late)
    assert over(side).collect() == 0
    assert held


def test_message_that_was_not_sent_does_not_count() -> None:
    side = join("one")
    theirs = side.far.give(Thing())
    before = side.references.traffic()
    for refused in ([Thing(), Thing], [theirs, Thing]):
        with pytest.raises(ValueUnsupported):
            side.codec.encode(refused)
    assert side.references.traffic() == before

    class AnsweredBefore:
        def answer(self, *args: Any) -> bool:
            return False

        def decoded(self, call: IncomingCall) -> None: ...

    source: Any = AnsweredBefore()
    service = Service(side.codec, side, {"home": lambda: theirs, "own": Thing})
    for method in ("home", "own"):
        service.run(IncomingCall.of(source, 1, 1, side.codec.encode([method, [], {}])))
    assert side.references.traffic() == before


@pytest.mark.parametrize(
    "answer",
    [
        None,
        5,
        [],
        [1, 2, 3, 4],
        [1, 1, ["x"], []],
        [1, 1, [], [[1]]],
        [1, 1, [], [[1, ["x"]]]],
        [1, 1, [], [["x", []]]],
    ],
)
def test_answer_that_is_no_survey_frees_nothing(answer: Any) -> None:
    side = join("one")
    tie(side)
    side.is_at_work = True
    asked = over(side)
    side.ask = lambda method, args, told: (setattr(side, "told", told), side.answer(answer))  # type: ignore[method-assign]
    assert asked.collect() == 0


@pytest.mark.parametrize("error", [BadRequest("no method 'survey'"), Disconnected("it ended")])
def test_worker_that_knows_no_surveys_keeps_what_it_holds(error: Any) -> None:
    side = join("one")
    seen = tie(side)
    side.ask = lambda method, args, told: told(error)  # type: ignore[method-assign]
    assert over(side).collect() == 0
    assert all(each() is not None for each in seen)


def test_worker_at_work_is_waited_for_once_and_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector_module, "SURVEY_SECONDS_MAX", 0.01)
    side = join("one")
    mine, theirs = tie(side)
    side.is_at_work = True
    collector = over(side)
    assert [collector.collect(), collector.collect()] == [0, 0]
    assert side.asked == 1
    side.answer(None)
    side.is_at_work = False
    # That answer was for the rounds before.
    assert [collector.collect(), collector.collect()] == [0, 1]
    assert side.asked == 2
    assert (mine(), theirs()) == (None, None)


# Any graph over three processes


class World(NamedTuple):
    """Where each object lives (0 is the host), which holds which, and which are held otherwise."""

    homes: list[int]
    edges: list[tuple[int, int]]
    kept: list[int]

    def alive(self) -> set[int]:
        found: set[int] = set()
        left = set(self.kept)
        while left:
            at = left.pop()
            found.add(at)
            left |= {to for start, to in self.edges if start == at} - found
        return found


@st.composite
def worlds(draw: st.DrawFn) -> World:
    homes = draw(st.lists(st.integers(0, 2), min_size=1, max_size=9))
    node = st.integers(0, len(homes) - 1)
    return World(homes, draw(st.lists(st.tuples(node, node), max_size=24)), draw(st.lists(node, max_size=2)))


def build(world: World, sides: list[Side]) -> tuple[list[weakref.ref[Thing]], list[Thing]]:
    things = [Thing() for _ in world.homes]
    for start, to in world.edges:
        value: Any = things[to]
        source, target = world.homes[to], world.homes[start]
        if source != target:
            # By the host, whose each passes on what is another's.
            value = sides[source - 1].far.give(value) if source else value
            value = sides[target - 1].give(value) if target else value
        things[start].held.append(value)
    return [weakref.ref(each) for each in things], [things[at] for at in world.kept]


@given(worlds())
def test_of_any_graph_exactly_what_nothing_holds_is_freed(world: World) -> None:
    sides = [join("one"), join("two")]
    things, kept = build(world, sides)
    collector = over(*sides)
    while collector.collect():
        pass
    gc.collect()
    assert {at for at, each in enumerate(things) if each() is not None} == world.alive()
    for at in world.alive():
        thing = things[at]()
        assert thing is not None
        for held in thing.held:
            if not isinstance(held, Thing):
                handle_of(held).check()
        del thing
    del kept


# When it looks by itself


class Clock:
    """What is to be done later, and when."""

    def __init__(self) -> None:
        self.waits: list[tuple[float, Callable[[], None]]] = []
        self.taken_back = 0

    def later(self, seconds: float, action: Callable[[], None]) -> Callable[[], None]:
        self.waits.append((seconds, action))
        return self._take_back

    def _take_back(self) -> None:
        self.taken_back += 1

    def go_on(self) -> float:
        """Until the next action, and does it. Returns how long that was."""
        ((seconds, action),) = self.waits
        self.waits.clear()
        action()
        return seconds


class Watched:
    """A host with one pack whose collector looks by itself."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.side = join("one", lambda: self.collector.wake())
        sides: Any = [self.side]
        self.collector = Collector(lambda: sides, self.clock.later)


def test_host_whose_packs_hold_nothing_or_are_not_held_never_looks() -> None:
    host = Watched()
    held = [host.side.give(Thing()) for _ in range(3)]
    assert host.clock.waits == []
    assert held


def test_looks_once_nothing_was_exchanged_for_a_while_and_then_rests() -> None:
    host = Watched()
    mine, theirs = tie(host.side)
    assert len(host.clock.waits) == 1
    for _ in range(3):
        # Something is exchanged all the time.
        assert host.clock.go_on() == CYCLES_QUIET_SECONDS
        host.side.give(Thing())
    assert host.side.asked == 0
    host.clock.go_on()
    assert (host.clock.go_on(), host.side.asked) == (CYCLES_QUIET_SECONDS, 1)
    assert (mine(), theirs()) == (None, None)
    # Nothing is held any more: this is the last look, until there is something again.
    host.clock.go_on()
    assert host.clock.waits == []
    tie(host.side)
    assert len(host.clock.waits) == 1


def test_looks_ever_more_rarely_where_nothing_is_found_and_soon_again_where_something_is() -> None:
    host = Watched()
    mine, _ = tie(host.side)
    held = mine()
    host.clock.go_on()
    waits = [host.clock.go_on() for _ in range(9)]
    assert waits == [min(CYCLES_QUIET_SECONDS * 2**each, CYCLES_WAIT_SECONDS_MAX) for each in range(9)]
    del held
    tie(host.side)
    # Not quiet.
    assert host.clock.go_on() == CYCLES_WAIT_SECONDS_MAX
    still, _ = tie(host.side)
    kept = still()
    host.clock.go_on()
    host.clock.go_on()
    assert mine() is None
    assert kept is not None
    assert host.clock.waits[0][0] == CYCLES_QUIET_SECONDS


def test_collector_that_could_not_start_a_thread_tries_again() -> None:
    clock = Clock()
    refuses = [True]

    def later(seconds: float, action: Callable[[], None]) -> Callable[[], None]:
        if refuses.pop():
            raise RuntimeError("can't start new thread")
        refuses.append(False)
        return clock.later(seconds, action)

    collector = Collector(list, later)
    collector.wake()
    assert clock.waits == []
    refuses.append(False)
    collector.wake()
    collector.wake()
    assert len(clock.waits) == 1


def test_closed_collector_looks_no_more() -> None:
    host = Watched()
    seen = tie(host.side)
    host.collector.close()
    assert host.clock.taken_back == 1
    host.clock.go_on()
    assert host.clock.waits == []
    del seen
