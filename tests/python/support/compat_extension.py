"""An extension for tests of the pyisolate module; workers import it by its name."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from enum import Enum
from typing import Any

import pyisolate
from pyisolate._internal.rpc_protocol import get_child_rpc_instance


class Colour(Enum):
    RED = 1


class Shy:
    """Has no form of its own."""

    def __init__(self, value: int) -> None:
        self.value = value

    def double(self) -> int:
        return self.value * 2


class Clock(pyisolate.ProxiedSingleton):
    """A service of the host's."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: list[str] = []

    async def thread(self) -> str:
        return threading.current_thread().name


class ProbeExtension(pyisolate.ExtensionBase):
    async def on_module_loaded(self, module: Any) -> None:
        self.module = module
        await asyncio.sleep(0.2)
        self.is_loaded = True

    async def loaded(self) -> bool:
        return self.is_loaded

    async def echo(self, value: Any) -> Any:
        return value

    async def kind(self, value: Any) -> str:
        return type(value).__name__

    async def use(self, shy: Any) -> list[Any]:
        return [shy.value, shy.double()]

    async def make(self, value: int) -> Shy:
        return Shy(value)

    async def process(self) -> int:
        return os.getpid()

    async def die(self) -> None:
        os._exit(3)

    async def fail(self) -> None:
        raise LookupError("not here", 7)

    async def finds(self, name: str) -> str | None:
        return getattr(__import__(name), "__file__", None)

    async def path(self) -> list[str]:
        return list(sys.path)

    async def variable(self, name: str) -> str | None:
        return os.environ.get(name)

    async def call(self, function: Any, *args: Any) -> Any:
        return await function(*args)

    async def call_by_id(self, callback_id: str, *args: Any) -> Any:
        rpc = get_child_rpc_instance()
        assert rpc is not None
        return await rpc.call_callback(callback_id, *args)

    async def clock_from_thread(self) -> str:
        """From a thread that belongs to no call."""
        result: list[str] = []

        def ask() -> None:
            result.append(asyncio.run(Clock().thread()))

        thread = threading.Thread(target=ask)
        thread.start()
        await asyncio.to_thread(thread.join)
        return result[0]

    async def emit(self, name: str, payload: Any) -> None:
        self.emit_event(name, payload)

    async def end(self) -> None:
        await self.stop()
