"""The shortest way for calls that follow one another, where each is one small frame and nothing else comes between.

Three functions, each written over all that it needs: they do in one what :class:`Channel`, :class:`Sender`,
:class:`Lead` and :class:`Receiver` do in steps, and leave to those whatever is not as plain. Where two processes take
turns on one core, each finds the caches and the branch predictor used by the other: a step of the interpreter costs
several times what it costs in a loop then, and so it is the number of steps that a call takes.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import get_ident
from time import monotonic
from typing import TYPE_CHECKING, Final

from comfy_airlock.wire.errors import AirlockError
from comfy_airlock.wire.frame import CALL, HEADER_BYTES, RESULT, Body, pack_plain_header, unpack_plain_header
from comfy_airlock.wire.incoming import IncomingCall
from comfy_airlock.wire.limits import CALLS_MAX
from comfy_airlock.wire.sending import WHOLE_BYTES_MAX
from comfy_airlock.wire.under_way import BYTES_COUNTED_MIN, NUMBER_MAX

if TYPE_CHECKING:
    from comfy_airlock.wire.channel import Channel
    from comfy_airlock.wire.recipients import WaitingThread

_BODY_BYTES_MAX: Final = WHOLE_BYTES_MAX - HEADER_BYTES

Ask = Callable[["WaitingThread", int, bytes], Body | None]
Take = Callable[[], IncomingCall | None]
Answer = Callable[[IncomingCall, bytes], object]


def asking(channel: Channel) -> Ask:  # noqa: C901 - in one, as this file says why.
    """Makes a channel's :attr:`Channel.ask`."""
    send, pending, numbers = channel.sender.send_small, channel.made.waiting, channel.made.numbers
    receiver, assembler = channel.receiver, channel.receiver.assembler
    counts, arrivals, may_spin, buffer = receiver.counts, receiver.arrivals, receiver.may_spin, assembler.buffer
    lead = channel.lead
    turns, followers, unattended = lead.turns, lead.followers, lead.unattended

    def ask(thread: WaitingThread, peer: int, body: bytes) -> Body | None:  # noqa: C901
        length = len(body)
        if length > _BODY_BYTES_MAX:
            thread.number = channel.call(thread, peer, body)
            return None
        number = next(numbers)
        if number > NUMBER_MAX:
            number = channel.made.first_free(number)
        # Put there before looking: whoever ends the channel, or leaves it, says so before it looks.
        pending[number] = thread
        if channel.refusal is not None:
            channel.check_taken(number)
        try:
            send(pack_plain_header(length, CALL, peer, number) + body)
        except BaseException as error:
            if not channel.will_be_told(error, number, thread):
                raise
        thread.number = number
        lead.threads_waited += 1
        turn = [get_ident()]
        try:
            if turns.setdefault(None, turn) is turn and not (thread.taken_care_of or lead.has_ended):
                has_part, count = assembler.has_part, -1
                try:
                    if may_spin or counts or has_part:
                        receiver.receive()
                        count = counts[0]
                        counts.clear()
                    else:
                        # No signal's handler runs between a loop's step and its variable.
                        for count in arrivals:  # noqa: B007 - read below.
                            break
                    size, kind, _, called = unpack_plain_header(buffer)
                    if called == number and kind == RESULT and size == count - HEADER_BYTES and not has_part:
                        pending.pop(number, None)
                        return buffer[HEADER_BYTES:count]
                    channel.received(count)
                except BaseException as error:
                    if not channel.has_failed(error, has_taken=bool(counts) or count >= 0):
                        raise
            return None
        finally:
            if turns.get(None) is turn:
                turns.clear()
                if followers or unattended or lead.keeper_sleeps:
                    lead.pass_on()

    return ask


def taking(channel: Channel) -> Take:
    """Makes a channel's :attr:`Channel.take`."""
    receiver, assembler, incoming = channel.receiver, channel.receiver.assembler, channel.taken.unanswered
    counts, arrivals, may_spin, buffer = receiver.counts, receiver.arrivals, receiver.may_spin, assembler.buffer

    def take() -> IncomingCall | None:
        has_part, count = assembler.has_part, -1
        try:
            if may_spin or counts or has_part:
                receiver.receive()
                count = counts[0]
                counts.clear()
            else:
                # As in ask.
                for count in arrivals:  # noqa: B007
                    break
            size, kind, peer, number = unpack_plain_header(buffer)
            is_plain = kind == CALL and size == count - HEADER_BYTES and size < BYTES_COUNTED_MIN and not has_part
            # Whoever reads, and nobody else, puts there what comes: others only what they have taken out.
            if is_plain and number and (not incoming or (number not in incoming and len(incoming) < CALLS_MAX)):
                call = incoming[number] = IncomingCall(channel, peer, number, buffer[HEADER_BYTES:count])
                return call
            channel.received(count)
        except BaseException as error:
            if not channel.has_failed(error, has_taken=bool(counts) or count >= 0):
                raise
        return None

    return take


def answering(channel: Channel) -> Answer:
    """Makes a channel's :attr:`Channel.answer_plain`."""
    send, incoming, is_direct = channel.sender.send_small, channel.taken.unanswered, channel.is_direct

    def answer_plain(call: IncomingCall, body: bytes) -> None:
        length = len(body)
        if not is_direct or call.size or length > _BODY_BYTES_MAX or channel.refusal is not None:
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
