"""Leases that were given to one other side, against a model of who has what: the queue at the server, the process that
is there, those that took its place.

Safe: nothing is let go of that somebody holds or will be given. Live: in the end all is let go of.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from comfy_airlock.memory.ledger import BlockKey, Gift, Ledger
from comfy_airlock.wire.errors import ProtocolError

KEYS = [BlockKey(segment, page, 1) for segment in (1, 2) for page in (1, 5)]
MESSAGES = st.lists(st.sampled_from(KEYS), min_size=1, max_size=3)


class Message:
    """A frame with attachments, between the ledger that counted them and whoever holds them."""

    def __init__(self, keys: list[BlockKey], gift: Gift) -> None:
        self.keys = keys
        self.gift = gift
        self.is_given_up = False


class Histories(RuleBasedStateMachine):
    """A giver, a server that relays in order, and one process after another on the other side."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.unsent: list[Message] = []
        self.queue: list[Message] = []
        self.at_work: list[Message] = []
        self.held: Counter[BlockKey] = Counter()
        # What the server has said and the giver has not read yet.
        self.inbox: deque[Callable[[], object]] = deque()
        self.unread_ends = 0
        self.let_go: list[Any] = []

    # The giver.

    @rule(keys=MESSAGES)
    def encode(self, keys: list[BlockKey]) -> None:
        gift = self.ledger.give((key, 1, ("kept", key)) for key in keys)
        self.unsent.append(Message(keys, gift))

    @precondition(lambda self: self.unsent)
    @rule(data=st.data())
    def give_up_unsent(self, data: st.DataObject) -> None:
        message = self._pick(data, self.unsent)
        self.let_go += self.ledger.take_back(message.gift)
        assert self.ledger.take_back(message.gift) == []

    @precondition(lambda self: self.unsent)
    @rule(data=st.data())
    def send_by_line(self, data: st.DataObject) -> None:
        message = self._pick(data, self.unsent)
        self.ledger.settled(message.gift)
        # A line is with one process, and ends with it.
        if not self.unread_ends:
            self.held.update(message.keys)

    @precondition(lambda self: self.unsent)
    @rule(data=st.data())
    def send_by_relay(self, data: st.DataObject) -> None:
        self.queue.append(self._pick(data, self.unsent))

    @precondition(lambda self: self.queue or self.at_work)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        message = data.draw(st.sampled_from([*self.queue, *self.at_work]))
        if not message.is_given_up:
            message.is_given_up = True
            self.ledger.abandoned(message.gift)
            if message in self.queue:
                self._withdraw(message)

    @precondition(lambda self: self.inbox)
    @rule()
    def read(self) -> None:
        self.inbox.popleft()()

    # The server.

    def _withdraw(self, message: Message) -> None:
        self.queue.remove(message)
        for key in message.keys:
            self.inbox.append(lambda key=key: self._let_go(self.ledger.undelivered(key)))

    @precondition(lambda self: self.queue)
    @rule()
    def deliver(self) -> None:
        message = self.queue.pop(0)
        self.at_work.append(message)
        self.held.update(message.keys)

    @precondition(lambda self: self.queue)
    @rule()
    def refuse(self) -> None:
        message = self.queue[0]
        self._withdraw(message)
        self._answer(message)

    def _answer(self, message: Message) -> None:
        if not message.is_given_up:
            self.inbox.append(lambda: self.ledger.settled(message.gift))

    # The other side.

    @precondition(lambda self: self.at_work)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        self._answer(self._pick(data, self.at_work))

    @precondition(lambda self: +self.held)
    @rule(data=st.data())
    def return_one(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(+self.held)))
        self.held[key] -= 1
        self.inbox.append(lambda: self._let_go(self.ledger.returned(key, is_trusted=True)))

    # Nobody starts and dies before it is heard that the one before it did: the one takes long, and the other no time.
    @precondition(lambda self: not self.unread_ends)
    @rule()
    def die(self) -> None:
        for message in self.at_work:
            self._answer(message)
        self.at_work = []
        self.held.clear()
        self.unread_ends += 1
        self.inbox.append(self._end)

    def _end(self) -> None:
        self.unread_ends -= 1
        self.let_go += self.ledger.end()

    # What holds.

    def _pick(self, data: st.DataObject, messages: list[Message]) -> Message:
        message = data.draw(st.sampled_from(messages))
        messages.remove(message)
        return message

    def _let_go(self, kept: object) -> None:
        if kept is not None:
            self.let_go.append(kept)

    @invariant()
    def what_somebody_has_is_kept(self) -> None:
        on_its_way = [key for message in (*self.unsent, *self.queue) for key in message.keys]
        for key in {*on_its_way, *(+self.held)}:
            assert self.ledger.has(key), f"{key} was let go of"

    @invariant()
    def pages_are_those_of_blocks(self) -> None:
        assert self.ledger.pages == self.ledger.count

    def teardown(self) -> None:
        while self.queue:
            self.deliver()
        while self.inbox:
            self.read()
        for message in self.unsent:
            self.ledger.take_back(message.gift)
        # One life more: what was given up on its way to a process that died is kept for the next, which may get it.
        for _ in range(2):
            for message in self.at_work:
                self.ledger.settled(message.gift)
            self.at_work = []
            self.ledger.end()
        assert self.ledger.count == 0
        assert not self.ledger._waiting
        assert not self.ledger._abandoned


Histories.TestCase.settings = settings(max_examples=100, stateful_step_count=40)
TestHistories = Histories.TestCase

KEY = KEYS[0]


def given_to(ledger: Ledger, *keys: BlockKey) -> Gift:
    return ledger.give((key, 3, f"kept for {key.page}") for key in keys)


def test_what_is_kept_is_let_go_of_with_the_last_receipt() -> None:
    ledger = Ledger()
    given_to(ledger, KEY, KEY)
    assert (ledger.count, ledger.pages) == (1, 3)
    assert ledger.returned(KEY, is_trusted=False) is None
    assert ledger.returned(KEY, is_trusted=False) == "kept for 1"
    assert ledger.count == 0


def test_more_returned_than_was_given_breaks_the_protocol_unless_it_is_trusted() -> None:
    ledger = Ledger()
    given_to(ledger, KEY)
    assert ledger.returned(KEY._replace(segment=7), is_trusted=True) is None
    with pytest.raises(ProtocolError, match="generation 2, was returned that is not held: there is generation 1 of it"):
        ledger.returned(KEY._replace(generation=2), is_trusted=False)
    with pytest.raises(ProtocolError, match="there is none"):
        ledger.returned(KEY._replace(page=9), is_trusted=False)
    assert ledger.has(KEY)


def test_a_process_that_returned_before_it_died_leaves_nothing_to_carry_over() -> None:
    ledger = Ledger()
    waiting, given_up = given_to(ledger, KEY), given_to(ledger, KEYS[1])
    ledger.abandoned(given_up)
    for key in (KEY, KEYS[1]):
        ledger.returned(key, is_trusted=True)
    assert ledger.end() == []
    again = given_to(ledger, KEY)
    assert ledger.take_back(waiting) == []
    assert ledger.take_back(again) == ["kept for 1"]


def test_a_call_that_waits_is_the_next_processs() -> None:
    ledger = Ledger()
    gift = given_to(ledger, KEY)
    assert ledger.end() == ["kept for 1"]  # And counted anew.
    assert ledger.has(KEY)
    ledger.settled(gift)
    assert ledger.returned(KEY, is_trusted=False) == "kept for 1"


def test_what_was_given_up_before_it_was_delivered_is_not_kept_for_the_next_process() -> None:
    ledger = Ledger()
    gift = given_to(ledger, KEY)
    ledger.abandoned(gift)
    assert ledger.undelivered(KEY) == "kept for 1"
    assert ledger.end() == []
    assert ledger.count == 0


def test_with_the_connection_all_goes_what_waits_too() -> None:
    ledger = Ledger()
    waiting, given_up = given_to(ledger, KEY), given_to(ledger, KEYS[1])
    ledger.abandoned(given_up)
    assert sorted(map(str, ledger.close())) == ["kept for 1", "kept for 5"]
    assert ledger.take_back(waiting) == []
    assert ledger.count == 0
