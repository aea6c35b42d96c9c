"""A host of the soak: sends arrays to packs, has them back, passes them on and keeps them, and checks every byte.

Says on its output, in lines of JSON, what it has done, and reads from its input what to do: ``finish`` has it end its
transfers, make one more with each pack, and let go of everything; ``close`` has it end. It is killed at any moment.

Arguments: seed, threads, the folder of ``contents.py``, and the packs' folders. With SOAK_TORCH, arrays are torch's.
"""

from __future__ import annotations

import asyncio
import gc
import json
import math
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from comfy_airlock import AirlockError, Pack, connect

SEED, THREADS = int(sys.argv[1]), int(sys.argv[2])
sys.path.insert(0, sys.argv[3])

from contents import check, make  # noqa: E402

KiB, MiB = 1024, 1024 * 1024
KEPT_MAX = 8
RECURRING_SIZES = (100 * KiB, MiB, 3 * MiB // 2, 3 * MiB, 12 * MiB)
SEGMENT_HEADER_BYTES_MAX = 17 * 4096
"""What a segment of 64 MiB and its header has of the latter."""
EXPECTED = ("worker_died", "worker_start_failed", "deadline_exceeded", "reference_gone")
"""What a transfer may end with whose worker is killed, or that has no time."""

output = threading.Lock()


def say(**said: Any) -> None:
    # One write each: whoever kills this process does not see half a line and take it for a whole one.
    with output:
        os.write(1, (json.dumps(said) + "\n").encode())


class Kept:
    """An array that this host keeps, and what it must hold."""

    def __init__(self, array: Any, seed: int, size: int, how: str) -> None:
        self.array, self.seed, self.size, self.how = array, seed, size, how

    def check(self, when: str) -> None:
        check(self.array, self.seed, self.size, f"in a host, {self.how}, {when}")


class Traffic:
    """One thread's transfers."""

    def __init__(self, airlock: Any, packs: list[Pack], number: int) -> None:
        self.random = random.Random(SEED * 1000 + number)
        self.airlock, self.packs = airlock, packs
        self.kept: list[Kept] = []
        self.shared: list[Kept] = []
        self.last_seed = (SEED * 1000 + number) << 24
        self.done = self.bytes = self.killed = 0
        self.steps: list[tuple[Callable[[], None], int]] = [
            (self.there_and_back, 24),
            (self.through_two, 14),
            (self.several, 8),
            (self.share, 10),
            (self.edit, 8),
            (self.make, 10),
            (self.again, 10),
            (self.keep_there, 6),
            (self.stream, 4),
            (self.ask, 4),
            (self.at_once, 3),
            (self.in_little_time, 3),
            (self.make_and_die, 2),
            (self.kill_who_answered, 2),
        ]

    def run(self, is_over: threading.Event) -> None:
        steps, weights = zip(*self.steps, strict=True)
        while not is_over.is_set():
            (step,) = self.random.choices(steps, weights)
            begun, bytes_before, killed = self.done, self.bytes, self.killed
            ended = "done"
            try:
                step()
                for kept in self.kept:
                    if self.random.random() < 0.2:
                        kept.check("some time later")
                self._let_go()
            except AirlockError as error:
                if error.code not in EXPECTED:
                    raise
                ended = error.code
            done, size = self.done - begun, self.bytes - bytes_before
            say(done=done, bytes=size, ended=ended, killed=self.killed - killed)

    def last(self) -> None:
        """One more transfer with each pack, whatever has been killed before."""
        for pack in self.packs:
            for attempt in range(3):
                try:
                    seed, size = self.new(MiB)
                    check(self.call(pack, "Echo", seed, size), seed, size, "in a host, at the end")
                    self.call(pack, "Forget")
                    break
                except AirlockError as error:
                    # Its worker may have been killed by this process, and that be told only now.
                    if error.code != "worker_died" or attempt == 2:
                        raise
        say(done=len(self.packs), bytes=MiB * len(self.packs), ended="done", killed=0)

    # What transfers are made of.

    def new(self, size: int | None = None) -> tuple[int, int]:
        """A seed that nobody had, and a size in bytes."""
        self.last_seed += 64
        if size is not None:
            return self.last_seed, size
        if os.environ.get("SOAK_TORCH"):
            # Sizes that come again, as those of images do: torch makes them where such were sent before.
            return self.last_seed, self.random.choice(RECURRING_SIZES)
        low, high = self.random.choices([(64 * KiB, 4 * MiB), (100, 64 * KiB), (4 * MiB, 40 * MiB)], [85, 12, 3])[0]
        return self.last_seed, int(math.exp(self.random.uniform(math.log(low), math.log(high))))

    def pack(self) -> Pack:
        return self.random.choice(self.packs)

    def call(self, pack: Pack, node: str, seed: int | None = None, size: int = 0, **more: Any) -> Any:
        """Calls a node with a new array, or with one that is given."""
        if seed is not None:
            more = {"seed": seed, "size": size, **more}
            if node not in ("Make", "MakeAndDie", "Stream", "Ask") and "array" not in more:
                more["array"] = make(seed, size)
        answered = pack.call(node, **more)
        return answered[0] if len(answered) == 1 else answered

    def count(self, size: int, transfers: int = 1) -> None:
        self.done += transfers
        self.bytes += size

    def keep(self, array: Any, seed: int, size: int, how: str) -> None:
        kept = Kept(array, seed, size, how)
        kept.check("as it comes")
        self.kept.append(kept)

    def _let_go(self) -> None:
        while len(self.kept) > KEPT_MAX or (self.kept and self.random.random() < 0.3):
            self.kept.pop(self.random.randrange(len(self.kept))).check("before it goes")
        while len(self.shared) > 2:
            self.shared.pop(0).check("before it goes")

    # The transfers.

    def there_and_back(self) -> None:
        seed, size = self.new()
        back = self.call(self.pack(), "Echo", seed, size)
        self.count(size)
        self.keep(back, seed, size, "answered as it was sent")

    def through_two(self) -> None:
        seed, size = self.new()
        first, second = self.pack(), self.pack()
        made = self.call(first, "Make", seed, size, is_shared=self.random.random() < 0.3)[0]
        check(made, seed, size, "in a host, made by a worker")
        self.count(size)
        passed = self.call(second, "Echo", seed, size, array=made)
        self.count(size)
        if self.random.random() < 0.5:
            del made
        self.call(first, "Take", seed, size, array=passed)
        self.count(size)
        self.keep(passed, seed, size, "passed from pack to pack")

    def several(self) -> None:
        wanted = [self.new() for _ in range(self.random.randint(2, 5))]
        arrays = [make(*each) for each in wanted]
        seeds, sizes = zip(*wanted, strict=True)
        (back,) = self.pack().call("EchoAll", arrays=arrays, seeds=list(seeds), sizes=list(sizes))
        self.count(sum(sizes))
        for array, (seed, size) in zip(reversed(back), wanted, strict=True):
            check(array, seed, size, "in a host, among several")
        kept = self.random.randrange(len(wanted))
        self.keep(back[::-1][kept], *wanted[kept], "of several")

    def share(self) -> None:
        if not self.shared or self.random.random() < 0.3:
            seed, size = self.new()
            self.shared.append(Kept(self.airlock.share(make(seed, size)), seed, size, "shared"))
        shared = self.random.choice(self.shared)
        for _ in range(self.random.randint(1, 4)):
            self.call(self.pack(), "Take", shared.seed, shared.size, array=shared.array)
            self.count(shared.size)
        shared.check("sent again and again")
        if self.random.random() < 0.3:
            # Written to, it is what is sent next; what was sent before stays what it was.
            before = self.call(self.pack(), "Echo", shared.seed, shared.size, array=shared.array)
            shared.array += 1
            try:
                self.call(self.pack(), "Take", shared.seed, shared.size, array=shared.array, plus=1)
            finally:
                shared.array -= 1
            self.count(shared.size, 2)
            check(before, shared.seed, shared.size, "in a host, answered before what was sent was written to")

    def edit(self) -> None:
        seed, size = self.new()
        array = make(seed, size)
        if self.random.random() < 0.5:
            array = self.airlock.share(array)
        edited = self.call(self.pack(), "Edit", seed, size, array=array)
        self.count(size)
        check(edited - 1, seed, size, "in a host, written to by a worker")
        check(array, seed, size, "in a host, of which a worker wrote to its copy")

    def make(self) -> None:
        seed, size = self.new()
        made, _ = self.call(self.pack(), "Make", seed, size, is_shared=self.random.random() < 0.3)
        self.count(size)
        self.keep(made, seed, size, "made by a worker")

    def again(self) -> None:
        if not self.kept:
            return
        kept = self.random.choice(self.kept)
        seconds = self.random.choice([0.0, 0.0, 0.02])
        self.call(self.pack(), "Take", kept.seed, kept.size, array=kept.array, seconds=seconds)
        self.count(kept.size)
        kept.check("sent once more")

    def keep_there(self) -> None:
        seed, size = self.new()
        self.call(self.pack(), "Keep", seed, size)
        self.count(size)

    def stream(self) -> None:
        seed, size = self.new()
        count = self.random.randint(1, 5)
        stream = self.call(self.pack(), "Stream", seed, size, count=count)
        for index, array in enumerate(stream):
            check(array, seed + index, size, "in a host, of a stream")
        self.count(size * count)

    def ask(self) -> None:
        seed, size = self.new()

        def answer(array: Any) -> Any:
            check(array, seed, size, "in a host, as a callback is given it")
            return array

        back = self.call(self.pack(), "Ask", seed, size, function=answer)
        self.count(size, 2)
        self.keep(back, seed, size, "asked for")

    def at_once(self) -> None:
        wanted = [self.new() for _ in range(4)]
        asyncio.run(self._at_once(wanted))

    async def _at_once(self, wanted: list[tuple[int, int]]) -> None:
        calls = [
            asyncio.create_task(self.pack().acall("Echo", array=make(*each), seed=each[0], size=each[1]))
            for each in wanted
        ]
        # Given up at any point on its way.
        given_up = calls.pop()
        await asyncio.sleep(self.random.uniform(0, 0.02))
        given_up.cancel()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        await asyncio.gather(given_up, return_exceptions=True)
        for answer, (seed, size) in zip(answers, wanted[:-1], strict=True):
            if isinstance(answer, BaseException):
                raise answer
            check(answer[0], seed, size, "in a host, one of some at once")
            self.count(size)

    def in_little_time(self) -> None:
        seed, size = self.new()
        pack = self.pack().options(timeout=self.random.uniform(0.001, 0.05))
        seconds = self.random.uniform(0, 0.02)
        self.call(pack, "Take", seed, size, seconds=seconds)
        self.count(size)

    def make_and_die(self) -> None:
        seed, size = self.new()
        self.killed += 1
        made = self.call(self.pack(), "MakeAndDie", seed, size, seconds=self.random.uniform(0.005, 0.05))
        self.count(size)
        self.keep(made, seed, size, "made by a worker that has died since")

    def kill_who_answered(self) -> None:
        seed, size = self.new()
        made, worker = self.call(self.pack(), "Make", seed, size, is_shared=self.random.random() < 0.3)
        try:
            os.kill(worker, signal.SIGKILL)
            self.killed += 1
        except ProcessLookupError:
            pass  # Somebody was faster.
        self.count(size)
        self.keep(made, seed, size, "made by a worker that was killed as it had answered")
        self.call(self.pack(), "Take", seed, size, array=made)
        self.count(size)


def segments_here() -> list[str]:
    """Descriptors and mappings of segments that this process has."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue
        if "airlock-segment" in target:
            found.append(f"descriptor {number} of {target}")
    with open("/proc/self/maps") as maps:
        found += [line.strip() for line in maps if "airlock-segment" in line]
    return found


def wait_until(is_so: Callable[[], bool], what: Callable[[], str], seconds: float = 15.0) -> None:
    until = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > until:
            raise AssertionError(f"waited in vain until {what()}")
        gc.collect()
        time.sleep(0.02)


def is_quiet(memory: dict[str, int]) -> bool:
    """Whether nobody holds anything: what is still used are the pages at the beginning of each segment."""
    held = memory.get("leases_given", 0) + memory.get("leases_held", 0)
    return held == 0 and memory.get("used_bytes", 0) <= memory.get("segments", 0) * SEGMENT_HEADER_BYTES_MAX


def holders(airlock: Any) -> list[str]:
    """Who has leases of this host's, of what, and whether their messages are still waited for."""
    found = []
    for leases in airlock._lines.sharing._leases.values():
        ledger = leases._ledger
        for key, lease in ledger._leases.items():
            waits = {
                what: [gift.life for gift in gifts if key in gift.keys]
                for what, gifts in (("waiting", ledger._waiting), ("given up", ledger._abandoned))
            }
            found.append(
                f"{leases.name} in life {leases.life} has {lease.count} of {key}, {lease.pages} pages, {waits}"
            )
    return found


def let_go(airlock: Any, packs: list[Pack]) -> None:
    """Everything that was shared is nobody's any more, here and in the workers."""
    wait_until(
        lambda: is_quiet(airlock.memory()),
        lambda: f"the host holds and lends nothing: {airlock.memory()}; {holders(airlock)}",
    )
    for pack in packs:

        def report(pack: Pack = pack) -> dict[str, int]:
            return pack.call("Report")[0]

        wait_until(
            lambda report=report: is_quiet(report()),
            lambda report=report, pack=pack: f"a worker of {pack.name} holds and lends nothing: {report()}",
        )


def main() -> None:
    airlock = connect(name=f"soak {SEED}")
    packs = [airlock.open(folder) for folder in sys.argv[4:]]
    is_over = threading.Event()
    traffics = [Traffic(airlock, packs, number) for number in range(THREADS)]

    def run(traffic: Traffic) -> None:
        try:
            traffic.run(is_over)
            for kept in (*traffic.kept, *traffic.shared):
                kept.check("when transfers are over")
        except BaseException:
            say(failed=traceback.format_exc())
            os._exit(1)

    threads = [threading.Thread(target=run, args=(traffic,)) for traffic in traffics]
    for thread in threads:
        thread.start()
    command = sys.stdin.readline()
    is_over.set()
    for thread in threads:
        thread.join()
    if command != "finish\n":
        return
    try:
        for traffic in traffics:
            traffic.last()
        for traffic in traffics:
            traffic.kept.clear()
            traffic.shared.clear()
        let_go(airlock, packs)
        say(quiet=airlock.memory())
        sys.stdin.readline()
        seed, size = traffics[0].new(3 * MiB)
        kept = Kept(packs[0].call("Make", seed=seed, size=size)[0], seed, size, "kept by a host that has left")
        airlock.close()
        kept.check("after the connection's end")
        del kept
        wait_until(lambda: not segments_here(), lambda: f"no segment is left here: {segments_here()}")
        say(ended=True)
    except BaseException:
        say(failed=traceback.format_exc())
        os._exit(1)


main()
