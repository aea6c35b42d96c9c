"""Log records of this process on their way to the host, with level and logger name, whatever the pack sets up.

A record is taken where its logger passes it on to handlers: so it has passed the levels and filters that the pack set,
and neither its handlers nor ``propagate`` matter. No handler is installed, because ``logging.basicConfig`` does nothing
where there is one. Invariants: who logs never waits, and never hears of a failure; what waits is bounded, and what is
dropped is counted; a record about the sending of records is not sent.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Final

from comfy_airlock.wire.errors import AirlockError
from comfy_airlock.wire.event_names import LOG_EVENT
from comfy_airlock.wire.limits import LOG_RECORDS_MAX, LOG_TEXT_CHARS_MAX

_BATCH_MAX: Final = 64
_FLUSH_SECONDS_MAX: Final = 1.0
_FORMAT: Final = "%(levelname)s %(name)s: %(message)s"


class _ToStderr(logging.Handler):
    """For records that no handler of the pack's takes: to what sys.stderr is at the moment, and so to the log file."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(f"{self.format(record)}\n")
        except Exception:  # noqa: BLE001 - the pack may have closed it, or a record may not be formatted.
            self.handleError(record)


class LogRecords:
    """The records that wait, and the thread that sends them, which is started by the first one."""

    def __init__(self, emit: Callable[[str, Any], None]) -> None:
        self._emit = emit
        self._waiting: SimpleQueue[dict[str, Any] | threading.Event] = SimpleQueue()
        self._mutex = threading.Lock()
        self._process = os.getpid()
        self._sender: int | None = None
        self._dropped = 0
        self._formatter = logging.Formatter()

    def capture(self) -> None:
        """Takes all records from now on. In a log file, those that the pack handles itself look as it has them look."""
        if logging.root.level == logging.WARNING:
            # As ComfyUI sets it, in whose process the pack would be otherwise.
            logging.root.setLevel(logging.INFO)
        handler = _ToStderr()
        handler.setFormatter(logging.Formatter(_FORMAT))
        logging.lastResort = handler  # pyright: ignore[reportAttributeAccessIssue] - typeshed has its class as the type.
        call_handlers = logging.Logger.callHandlers

        def take_and_call(logger: logging.Logger, record: logging.LogRecord) -> None:
            self._take(record)
            call_handlers(logger, record)

        logging.Logger.callHandlers = take_and_call  # type: ignore[method-assign]

    def _take(self, record: logging.LogRecord) -> None:
        ident = threading.get_ident()
        # A forked child has no thread that sends; what it logs is in the file.
        if ident == self._sender or os.getpid() != self._process:
            return
        if self._waiting.qsize() >= LOG_RECORDS_MAX:
            self._dropped += 1
            return
        try:
            fields = self._fields(record)
        except Exception:  # noqa: BLE001 - the arguments do not fit the message, or their own code raises.
            return  # The pack's own handlers say so, or the one to stderr does.
        self._waiting.put(fields)
        if self._sender is None:
            self._start()

    def _fields(self, record: logging.LogRecord) -> dict[str, Any]:
        fields = {
            "name": _sendable(record.name),
            "level": record.levelno,
            "message": _sendable(record.getMessage()),
            "created": record.created,
            "path": _sendable(record.pathname),
            "line": record.lineno,
            "function": record.funcName and _sendable(record.funcName),
            "thread": record.threadName and _sendable(record.threadName),
            "pid": self._process,
        }
        if record.exc_info and record.exc_info[0] is not None:
            traceback = self._formatter.formatException(record.exc_info)
            # Its last line says what was raised.
            fields["exception"] = _sendable(traceback[-LOG_TEXT_CHARS_MAX:])
        return fields

    def _start(self) -> None:
        with self._mutex:
            if self._sender is not None:
                return
            thread = threading.Thread(target=self._send, name="airlock-logs", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return  # The interpreter is about to end.
            self._sender = thread.ident

    def _send(self) -> None:
        self._sender = threading.get_ident()
        while True:
            batch = [self._waiting.get()]
            try:
                while len(batch) < _BATCH_MAX:
                    batch.append(self._waiting.get_nowait())
            except Empty:
                pass
            dropped, self._dropped = self._dropped, 0
            records = [each for each in batch if isinstance(each, dict)]
            try:
                if records or dropped:
                    self._emit(LOG_EVENT, {"records": records, "dropped": dropped})
            except AirlockError:
                pass  # Nobody is there to hear it; the log file has it.
            for each in batch:
                if isinstance(each, threading.Event):
                    each.set()

    def flush(self) -> None:
        """Waits until what was taken so far is sent, but not for long."""
        if self._sender is None:
            return
        is_sent = threading.Event()
        self._waiting.put(is_sent)
        is_sent.wait(_FLUSH_SECONDS_MAX)


def _sendable(text: str) -> str:
    """As much as may be sent; halves of surrogate pairs (in names of files) are spelled out, having no UTF-8."""
    return text[:LOG_TEXT_CHARS_MAX].encode(errors="backslashreplace").decode()
