"""Objects that stay where they live: which of ours one other side holds, and which of its own we hold.

The owner keeps an object for as long as the other side holds a reference to it: it counts how often it sent the
reference, and the holder, once its stand-in is garbage, tells how often it received it. A reference that is on its way
meanwhile is counted by one and not yet by the other, so it is not lost. Counts don't see a cycle of objects that hold
each other from both sides: ``comfy_airlock.host.collector`` looks for those. Knows nothing of how calls travel.
"""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Iterable
from types import BuiltinFunctionType, FunctionType, MethodType, MethodWrapperType, ModuleType
from typing import Any, Final
from weakref import WeakValueDictionary

from comfy_airlock.calls.remote import COLLECTED, ENDED, Caller, Handle, Remote, Revealed, handle_of, make_stand_in
from comfy_airlock.calls.traffic import Traffic, TrafficCounter
from comfy_airlock.calls.undecoded import UndecodedBodies
from comfy_airlock.wire.errors import BadRequest, ReferenceGone
from comfy_airlock.wire.frame import Body
from comfy_airlock.wire.laden import LadenBody
from comfy_airlock.wire.reference import Reference

#: Not used twice by a process, and begun at random: one of an earlier process is not found.
_next_id: Final = itertools.count(random.getrandbits(48))

#: Subclasses of these are values of which a form would lose something: an error says so, and no reference hides it.
_VALUES: Final = (int, float, complex, str, bytes, bytearray, list, dict, tuple, set, frozenset)
_ARRAY_MODULES: Final = ("numpy", "torch")
_FUNCTIONS: Final = (FunctionType, BuiltinFunctionType, MethodType, MethodWrapperType)


class Exported:
    """An object of ours that the other side holds."""

    __slots__ = ("failure", "has_ended", "is_revealed", "kind", "receipts", "value")

    def __init__(self, value: Any, kind: str, is_revealed: bool) -> None:
        self.value = value
        self.kind = kind
        self.is_revealed = is_revealed
        self.receipts = 0
        # What an iterator raised after items that were still to be sent.
        self.failure: Exception | None = None
        # Whether an iterator is exhausted or closed.
        self.has_ended = False


class References:
    """Both sides' objects, of one pair of processes.

    Attributes:
        undecoded: what has come, and may bring references that are not counted yet.
    """

    def __init__(self, caller: Caller, reveals: bool) -> None:
        """
        Args:
            caller: carries calls to the other side's objects.
            reveals: whether the other side may use all objects that it gets, or only those that were marked for it.
        """
        self._caller = caller
        self._reveals = reveals
        self._lock = threading.Lock()
        self._exports: dict[int, Exported] = {}
        self._ids: dict[int, int] = {}
        self._stand_ins: WeakValueDictionary[int, Remote] = WeakValueDictionary()
        self.undecoded = UndecodedBodies()
        self._traffic = TrafficCounter()
        # What values that are being encoded have exported so far, by thread.
        self.unsettled: dict[int, list[int]] = {}

    def describe(self, value: Any) -> Reference | None:
        """What crosses in the place of an object, and counts it as sent; None where nothing can.

        Raises:
            ReferenceGone: it is a stand-in for something that is no more.
        """
        is_revealed = self._reveals
        if isinstance(value, Revealed):
            value, is_revealed = value.value, True
        handle = handle_of(value) if isinstance(value, Remote) else None
        if handle is not None and handle.caller is self._caller:
            handle.check()
            self.unsettled.setdefault(threading.get_ident(), [])
            return Reference(handle.number)
        kind = _kind_of(value)
        if kind is None:
            return None
        with self._lock:
            number = self._ids.get(id(value))
            is_new = number is None
            if number is None:
                number = self._ids[id(value)] = next(_next_id)
                self._exports[number] = Exported(value, kind, is_revealed)
            entry = self._exports[number]
            entry.is_revealed |= is_revealed
            entry.receipts += 1
            self.unsettled.setdefault(threading.get_ident(), []).append(number)
        if is_new and self._stand_ins:
            self._caller.entangled()
        described = f"{type(value).__module__}:{type(value).__qualname__}" if handle is None else handle.type
        return Reference(number, kind, described)

    def settle(self) -> list[int] | None:
        """The references of ours in what this thread has encoded since it was asked last, one for each receipt.

        None where it holds no reference at all.
        """
        thread = threading.get_ident()
        if thread in self.unsettled:
            # Before it is settled: what is neither would look as if it did not exist.
            self._traffic.sent()
        return self.unsettled.pop(thread, None)

    def revert(self, receipts: list[int] | None) -> None:
        """What :meth:`settle` gave will not be sent."""
        if receipts is None:
            return
        self._traffic.taken_back()
        for number in receipts:
            self.release(number, 1)

    def hold(self, body: Body) -> LadenBody:
        """A body that holds references was read, and is decoded later. Called on a thread that reads."""
        held = self.undecoded.hold(body)
        self._traffic.received()
        return held

    def release(self, number: int, count: int) -> None:
        """So many receipts of one of our references are over. What is unknown was dropped before."""
        with self._lock:
            entry = self._exports.get(number)
            if entry is None:
                return
            entry.receipts -= count
            if entry.receipts <= 0:
                del self._exports[number]
                self._ids.pop(id(entry.value), None)
        # Outside the lock it may be garbage now, and its finalizer may do anything.
        del entry

    def exported(self, number: object) -> Exported:
        """The object of ours behind a number.

        Raises:
            ReferenceGone: there is none.
            BadRequest: it is no number.
        """
        if type(number) is not int:
            raise BadRequest("a reference's number is no int")
        entry = self._exports.get(number)
        if entry is None:
            raise ReferenceGone(f"object {number} is gone: it was released, or lived in a process that has ended")
        return entry

    def restore(self, reference: Reference) -> Any:
        """The object or the stand-in that a reference stands for; counts it as received.

        Raises:
            ReferenceGone: it names an object of ours that is gone.
        """
        number, kind, described = reference
        if kind is None or described is None:
            return self.exported(number).value
        self._caller.may_discard()
        with self._lock:
            stand_in = self._stand_ins.get(number)
            is_new = stand_in is None
            if stand_in is None:
                handle = Handle(self._caller, kind, number, described)
                stand_in = self._stand_ins[number] = make_stand_in(handle)
            handle_of(stand_in).receipts += 1
        if is_new and self._exports:
            self._caller.entangled()
        return stand_in

    def mark(self) -> dict[int, int]:
        """What the other side holds by now: how often each object was sent and not given back."""
        with self._lock:
            return {number: entry.receipts for number, entry in self._exports.items()}

    def end_marked(self, mark: dict[int, int]) -> None:
        """The process is gone that held what was marked. What was sent since then is for another in its place."""
        if not self._exports and not self._stand_ins and not self.unsettled and not self.undecoded.any():
            # Nothing was: the next one begins anew.
            self.end()
            return

        def release() -> None:
            for number, count in mark.items():
                self.release(number, count)

        # As below.
        threading.Thread(target=release, name="airlock-aside", daemon=True).start()

    def end(self) -> None:
        """The other process is gone, or another is in its place: what it held is free, and what we held is no more."""
        with self._lock:
            exports, self._exports, self._ids = self._exports, {}, {}
            stand_ins, self._stand_ins = list(self._stand_ins.values()), WeakValueDictionary()
            self._traffic.end()
        for each in stand_ins:
            handle_of(each).gone_because = ENDED
        if exports:
            # What they are may have finalizers that call, and this is the thread that reads.
            threading.Thread(target=exports.clear, name="airlock-aside", daemon=True).start()

    @property
    def counts(self) -> tuple[int, int]:
        """How many objects of ours the other side holds, and how many of its own we hold."""
        return len(self._exports), len(self._stand_ins)

    @property
    def life(self) -> int:
        """Which of the processes that there were is on the other side."""
        return self._traffic.life

    def traffic(self) -> Traffic | None:
        """What was exchanged so far; None where something is half sent or half received. One thread at a time asks."""
        traffic = self._traffic.look()
        return None if self.unsettled or self.undecoded.any() else traffic

    def tables(self) -> tuple[dict[int, Exported], dict[int, Remote]]:
        """What the other side holds, which changes, and what is held of it, which keeps that."""
        # Not under the lock: much is made here, which may set off the garbage collector, and finalizers may call.
        held = {each.key: stand_in for each in self._stand_ins.valuerefs() if (stand_in := each()) is not None}
        return self._exports, held

    def give_back(self, numbers: Iterable[int], traffic: Traffic) -> int:
        """Ends stand-ins that nothing can get at but what they hold themselves, as if they were garbage.

        Args:
            traffic: what was exchanged when that was found out. Where more was since, nothing is ended.

        Returns:
            How many were still there.
        """
        with self._lock:
            if self.traffic() != traffic:
                return 0
            found = [each for each in (self._stand_ins.pop(number, None) for number in numbers) if each is not None]
            for each in found:
                handle_of(each).gone_because = COLLECTED
        for each in found:
            handle = handle_of(each)
            self._caller.discard(handle.number, handle.receipts)
        return len(found)


def _kind_of(value: Any) -> str | None:
    cls = type(value)
    if isinstance(value, Remote):
        return handle_of(value).kind
    if isinstance(value, (type, ModuleType, *_VALUES)) or cls.__module__.partition(".")[0] in _ARRAY_MODULES:
        return None
    if isinstance(value, _FUNCTIONS) or (cls.__module__, cls.__qualname__) == ("functools", "partial"):
        return "function"
    # Files are iterators of lines, and that is not what they are passed for.
    if hasattr(cls, "__next__") and not hasattr(cls, "read"):
        return "iterator"
    if hasattr(cls, "__anext__"):
        return "async_iterator"
    return "object"
