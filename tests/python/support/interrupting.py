"""An interrupt at each place where one can come: the handler of a signal runs where the interpreter looks for signals.

It looks as a function begins, as a loop begins anew, and after a call into C. What runs is traced opcode by opcode.
"""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, Final


class Interrupt(BaseException):
    """What the handler raises, as Python's own raises KeyboardInterrupt."""


_LOOKS_FROM_PYTHON_TOO: Final = sys.version_info < (3, 11)
"""Whether it looks after a call to a function in Python, too."""


class Interrupting:
    """Runs something and interrupts it at one place: the first, the second, and so on."""

    def __init__(self, package: str) -> None:
        """
        Args:
            package: the path of what is interrupted; its callers and what it calls elsewhere are not.
        """
        self._package = package
        self._places: dict[CodeType, dict[int, str]] = {}
        self._last: dict[FrameType, str] = {}
        self._left = 0
        self.where = ""

    def run(self, work: Callable[[], object], place: int) -> bool:
        """Whether it has so many places, and was interrupted at this one."""
        self._left = place
        self.where = ""
        before = sys.gettrace()
        # Python 3.12 and later trace opcodes where some frame asked for that before.
        sys._getframe().f_trace_opcodes = True
        sys.settrace(self._called)
        try:
            work()
        except Interrupt:
            pass
        finally:
            sys.settrace(before)
            self._last.clear()
        return bool(self.where)

    def _called(self, frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_back is not None and not _LOOKS_FROM_PYTHON_TOO:
            self._last.pop(frame.f_back, None)
        if not frame.f_code.co_filename.startswith(self._package):
            return None
        self._last[frame] = "RESUME"
        frame.f_trace_lines = False
        frame.f_trace_opcodes = True
        return self._step

    def _step(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "opcode":
            last = self._last.get(frame, "")
            self._last[frame] = self._names(frame.f_code)[frame.f_lasti]
            if _looks_after(last):
                self._left -= 1
                if self._left == 0:
                    self.where = f"{frame.f_code.co_name}, line {frame.f_lineno}, after {last}"
                    raise Interrupt
        return self._step

    def _names(self, code: CodeType) -> dict[int, str]:
        names = self._places.get(code)
        if names is None:
            names = self._places[code] = {each.offset: each.opname for each in dis.get_instructions(code)}
        return names


def _looks_after(operation: str) -> bool:
    is_call = operation.startswith("CALL") and "INTRINSIC" not in operation
    return is_call or operation in ("RESUME", "JUMP_BACKWARD", "JUMP_ABSOLUTE")
