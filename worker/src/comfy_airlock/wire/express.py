"""The shortest way for calls that follow one another, where each is one small frame and nothing else comes between.

Three functions, each written over all that it needs: they do in one what :class:`Channel`, :class:`Sender`,
:class:`Lead` and :class:`Receiver` do in steps, and leave to those whatever is not as plain. Where two processes take
turns on one core, each finds the caches and the branch predictor used by the other: a step of the interpreter costs
several times what it costs in a loop then, and so it is the number of steps that a call takes.

No signal's handler, which may raise, runs between a loop's step and its variable: what was received is counted. Nor
does one between the end of a block and a ``del`` that begins what is done at last: a lead that was taken is given up,
and whoever waits for that is told again where telling was interrupted.
"""

from __future__ import annotations

from _signal import SIGALRM, getsignal
from collections.abc import Callable
from threading import get_ident
from time import monotonic
from typing import TYPE_CHECKING, Final

from comfy_airlock.wire.errors import AirlockError
from comfy_airlock.wire.frame import CALL, HEADER_BYTES, RESULT, Body, pack_plain_header, unpack_plain_header
from comfy_airlock.wire.incoming import IncomingCall
from comfy_airlock.wire.sending import WHOLE_BYTES_MAX
from comfy_airlock.wire.under_way import BYTES_COUNTED_MIN, NUMBER_MAX

if TYPE_CHECKING:
    from comfy_airlock.wire.channel import Channel
    from comfy_airlock.wire.lead import Turn, Waiting
    from comfy_airlock.wire.recipients import WaitingThread

_BODY_BYTES_MAX: Final = WHOLE_BYTES_MAX - HEADER_BYTES

Ask = Callable[["WaitingThread", bytes], Body | None]
"""Makes a call without deadline, parent and references for a thread that waits for it, over a channel without credit,
and reads once for the answer where no other thread reads. Gives the body of the result where that is what came next;
else None, and the thread was told of the outcome or will be. Raises as :meth:`Channel.call`."""
Take = Callable[["Waiting", "Turn"], IncomingCall | None]
Answer = Callable[[IncomingCall, bytes], object]


def asking(channel: Channel, peer: int) -> Ask:  # noqa: C901 - in one, as this file says why.
    """The way to call ``peer`` over a channel."""
    send, pending, numbers = channel.sender.send_small, channel.made.waiting, channel.made.numbers
    receiver, assembler = channel.receiver, channel.receiver.assembler
    counts, arrivals, may_spin, buffer = receiver.counts, receiver.arrivals, receiver.may_spin, assembler.buffer
    lead = channel.lead
    turns, wanted = lead.turns, lead.wanted

    def ask(thread: WaitingThread, body: bytes) -> Body | None:  # noqa: C901
        length = len(body)
        if length > _BODY_BYTES_MAX:
            thread.asked(channel, peer, channel.call(thread, peer, body))
            return None
        number = next(numbers)
        if number > NUMBER_MAX:
            number = channel.made.first_free(number)
        turn = [get_ident()]
        # Put there before looking: whoever ends the channel, or leaves it, says so before it looks.
        pending[number] = thread
        if channel.refusal is not None:
            try:
                channel.check_taken(number)
            except BaseException:
                pending.pop(number, None)
                raise
        try:
            send(pack_plain_header(length, CALL, peer, number) + body)
        except BaseException as error:
            if not channel.will_be_told(error, peer, number, thread):
                raise
        try:
            lead.threads_waited += 1
            if turns.setdefault(None, turn) is turn:
                count = -1
                try:
                    if not (thread.taken_care_of or assembler.has_part):
                        if may_spin or counts:
                            receiver.receive()
                            count = counts[0]
                            counts.clear()
                        else:
                            for count in arrivals:  # noqa: B007 - read below.
                                break
                        size, kind, _, called = unpack_plain_header(buffer)
                        if called == number and kind == RESULT and size == count - HEADER_BYTES:
                            pending.pop(number, None)
                            return buffer[HEADER_BYTES:count]
                        channel.received(count)
                except BaseException as error:
                    if not channel.has_failed(error, has_taken=bool(counts) or count >= 0):
                        raise
                finally:
                    del turns[None]
                    if wanted:
                        lead.pass_on()
        except BaseException:
            lead.give_up(turn)
            thread.asked(channel, peer, number)
            raise
        thread.asked(channel, peer, number)
        return None

    return ask


def taking(channel: Channel) -> Take:
    """Makes a channel's :attr:`Channel.take`."""
    receiver, assembler, incoming = channel.receiver, channel.receiver.assembler, channel.taken.unanswered
    counts, arrivals, may_spin, buffer = receiver.counts, receiver.arrivals, receiver.may_spin, assembler.buffer
    lead = channel.lead
    turns, wanted = lead.turns, lead.wanted

    def take(seat: Waiting, turn: Turn) -> IncomingCall | None:
        lead.threads_waited += 1
        try:
            if turns.setdefault(None, turn) is turn:
                count = -1
                try:
                    # A timer's signals would begin the wait anew each time. Whether one runs is asked by who reads for
                    # all, every 20 ms; what is asked here costs no system call, and misses handlers that are C's.
                    if not (seat.taken_care_of or assembler.has_part or getsignal(SIGALRM)):
                        # As in ask.
                        if may_spin or counts:
                            receiver.receive()
                            count = counts[0]
                            counts.clear()
                        else:
                            for count in arrivals:  # noqa: B007
                                break
                        size, kind, peer, number = unpack_plain_header(buffer)
                        is_plain = kind == CALL and size == count - HEADER_BYTES and size < BYTES_COUNTED_MIN and number
                        if is_plain and not incoming:
                            call = IncomingCall()
                            call.channel = channel
                            call.peer = peer
                            call.number = number
                            call.body = buffer[HEADER_BYTES:count]
                            incoming[number] = call
                            return call
                        channel.received(count)
                except BaseException as error:
                    if not channel.has_failed(error, has_taken=bool(counts) or count >= 0):
                        raise
                finally:
                    del turns[None]
                    if wanted:
                        lead.pass_on()
        except BaseException:
            lead.give_up(turn)
            raise
        return None

    return take


def answering(channel: Channel) -> Answer:
    """Makes a channel's :attr:`Channel.answer_plain`."""
    if not channel.is_direct:
        return lambda call, body: channel.answer(call, RESULT, body)
    send, incoming = channel.sender.send_small, channel.taken.unanswered

    def answer_plain(call: IncomingCall, body: bytes) -> None:
        length = len(body)
        if length > _BODY_BYTES_MAX:
            channel.answer(call, RESULT, body)
            return
        number = call.number
        if incoming.pop(number, None) is call:
            channel.answered_at = monotonic()
            call.is_answered = True
            try:
                send(pack_plain_header(length, RESULT, call.peer, number) + body)
            except AirlockError:
                pass  # Whoever asked is gone.

    return answer_plain
