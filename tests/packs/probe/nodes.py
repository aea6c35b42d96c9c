"""The nodes of the probe pack. Each takes what its test gives it; types are ANY throughout."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any


@dataclass
class Mesh:
    """A type that only this pack has."""

    vertices: list[int]


class ProbeError(ValueError):
    """An exception that only this pack has."""


class _Node:
    RETURN_TYPES: tuple[str, ...] = ("*",)
    FUNCTION = "run"
    CATEGORY = "probe"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}, "optional": {"value": ("*",)}}


class Echo(_Node):
    def run(self, value: Any = None) -> tuple[Any]:
        return (value,)


class AsyncEcho(_Node):
    async def run(self, value: Any = None, seconds: float = 0.0) -> tuple[Any]:
        print("waiting", flush=True)
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            print("given up", flush=True)
            raise
        return (value,)


class Describe(_Node):
    """The value's type and repr, as seen in the worker."""

    def run(self, value: Any = None) -> tuple[str, str]:
        return (f"{type(value).__module__}.{type(value).__qualname__}", repr(value))


class Raise(_Node):
    def run(self, message: str = "as asked", own: bool = False) -> tuple[()]:
        if own:
            raise ProbeError(message, 7)
        raise KeyError(message)


class MakeMesh(_Node):
    def run(self) -> tuple[Mesh]:
        return (Mesh([1, 2, 3]),)


class CountVertices(_Node):
    def run(self, mesh: Mesh) -> tuple[int]:
        return (len(mesh.vertices),)


class Sleep(_Node):
    def run(self, seconds: float) -> tuple[float]:
        print("sleeping", flush=True)
        time.sleep(seconds)
        return (seconds,)


class SleepHoldingGil(_Node):
    """Sleeps in C without giving up the interpreter's lock."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"seconds": ("INT",)}}

    def run(self, seconds: int) -> tuple[int]:
        print("sleeping", flush=True)
        ctypes.PyDLL(None).sleep(seconds)
        return (seconds,)


class End(_Node):
    """Ends the worker: by a signal, by exit, by os._exit (in a thread, too), or by a fault or an abort in C."""

    def run(self, how: str) -> tuple[()]:
        print(f"about to end by {how}")
        if how == "exit":
            sys.exit(0)
        if how == "_exit":
            os._exit(3)
        if how == "_exit in a thread":
            threading.Thread(target=os._exit, args=(3,)).start()
            time.sleep(60)
        if how == "fault":
            ctypes.string_at(0)
        if how == "abort":
            ctypes.CDLL(None).abort()
        os.kill(os.getpid(), getattr(signal, how))
        time.sleep(60)
        return ()


class Fork(_Node):
    """Leaves a child behind that holds all of the worker's descriptors; answers its process id."""

    def run(self) -> tuple[int]:
        child = os.fork()
        if child == 0:
            time.sleep(600)
            os._exit(0)
        return (child,)


class Escape(_Node):
    """Leaves a child behind that is in no group of the worker's and holds all that it held; answers its process id."""

    def run(self) -> tuple[int]:
        libc = ctypes.PyDLL(None)
        # Not by os.fork: Python would tell the child to close what it inherits.
        child = libc.fork()
        if child == 0:
            libc.setsid()
            libc.sleep(600)
            libc._exit(0)
        return (child,)


class ForkedSockets(_Node):
    """The sockets that the worker holds, and those that a child which it forks holds."""

    def run(self) -> tuple[list[str], list[str]]:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(write, "\n".join(_sockets()).encode())
            os._exit(0)
        os.close(write)
        os.waitpid(child, 0)
        with os.fdopen(read) as said:
            return _sockets(), said.read().splitlines()


def _sockets() -> list[str]:
    folder = "/proc/self/fd"
    # The descriptor that reads the folder is closed by the time its link is looked at.
    links = [os.path.join(folder, name) for name in os.listdir(folder)]
    return sorted(os.readlink(link) for link in links if os.path.islink(link) and "socket:" in os.readlink(link))


class Spawn(_Node):
    """Starts a program that outlives the call; answers its process id."""

    def run(self) -> tuple[int]:
        return (subprocess.Popen(["sleep", "600"]).pid,)


class Print(_Node):
    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"text": ("STRING",)}}

    def run(self, text: str) -> tuple[()]:
        print(text)
        os.write(2, f"{text} on descriptor 2\n".encode())
        return ()


class Flood(_Node):
    """Writes so much to descriptor 1, in lines."""

    def run(self, megabytes: int) -> tuple[()]:
        piece = (b"x" * 127 + b"\n") * 8192
        for _ in range(megabytes):
            written = 0
            while written < len(piece):
                written += os.write(1, piece[written:])
        return ()


class CloseOutput(_Node):
    def run(self, descriptors: list[int]) -> tuple[()]:
        for descriptor in descriptors:
            os.close(descriptor)
        return ()


class PrintElsewhere(_Node):
    def run(self) -> tuple[()]:
        with open("/dev/stdout", "w") as stdout:
            stdout.write("through /dev/stdout\n")
        subprocess.run(["sh", "-c", "echo from a child >&2"], check=True)
        return ()


class CrashInChild(_Node):
    def run(self) -> tuple[()]:
        child = os.fork()
        if child == 0:
            ctypes.string_at(0)
        os.waitpid(child, 0)
        return ()


class Log(_Node):
    """Logs under a name, in whichever way it is told to."""

    def run(self, how: str, count: int = 1) -> tuple[Any, ...]:
        logger = logging.getLogger("probe.nodes")
        if how == "levels":
            logger.debug("not unless asked for")
            logger.info("info %d", 7)
            logger.error("error")
            logging.getLogger("probe.quiet").warning("warning")
        elif how == "exception":
            try:
                raise KeyError("as asked")
            except KeyError:
                logger.exception("it failed")
        elif how == "own configuration":
            logging.basicConfig(format="MINE %(message)s", level=logging.DEBUG)
            logger.debug("configured")
            return (len(logging.root.handlers),)
        elif how == "apart":
            logger.propagate = False
            logger.warning("kept apart")
        elif how == "wrong arguments":
            logger.warning("%d", "seven")
        elif how == "flood":
            for index in range(count):
                logger.info("%d %s", index, "x" * 1000)
        elif how == "fork":
            child = os.fork()
            if child == 0:
                logger.warning("of a child")
                os._exit(0)
            os.waitpid(child, 0)
            logger.warning("of the parent")
        return ()


class Environment(_Node):
    """What the worker can see of where it runs."""

    def run(self) -> tuple[dict[str, Any]]:
        variables = {name: value for name, value in os.environ.items() if name.startswith(("AIRLOCK", "PYTHON"))}
        return ({"executable": sys.executable, "path": sys.path, "variables": variables, "cwd": os.getcwd()},)


class ImageMean(_Node):
    """An IMAGE's type and mean, and the image itself."""

    RETURN_TYPES = ("STRING", "FLOAT", "IMAGE")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": ("IMAGE",)}}

    def run(self, image: Any) -> tuple[str, float, Any]:
        return (type(image).__module__.partition(".")[0], float(image.mean()), image)


class Blanks(_Node):
    """So many blanks."""

    def run(self, count: int) -> tuple[str]:
        return (count * " ",)


class Unsendable(_Node):
    def run(self) -> tuple[object]:
        return ({"where": [object]},)


class NoFunction:
    RETURN_TYPES = ()


NODE_CLASS_MAPPINGS = {
    cls.__name__: cls
    for cls in (
        Echo,
        AsyncEcho,
        Describe,
        Raise,
        MakeMesh,
        CountVertices,
        Sleep,
        SleepHoldingGil,
        End,
        Fork,
        Escape,
        ForkedSockets,
        Spawn,
        Print,
        Flood,
        CloseOutput,
        PrintElsewhere,
        CrashInChild,
        Log,
        Environment,
        ImageMean,
        Blanks,
        Unsendable,
        NoFunction,
    )
}
