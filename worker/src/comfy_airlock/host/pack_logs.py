"""Log records of a pack's workers, given to this process's own loggers as if the pack ran here.

Level and logger name are kept, and this process's levels, filters and handlers decide what becomes of them. A record
has ``pack`` and ``pid`` besides, and the worker's process id as its ``process``. What a worker sends is checked first:
a pack must not be able to do more here than to log.
"""

from __future__ import annotations

import logging
from typing import Any, Final, cast

from comfy_airlock.wire.limits import LOG_TEXT_CHARS_MAX

_LOGGERS_MAX: Final = 1024
"""Names of loggers that one pack may bring: ``logging`` keeps each for good."""
_NAME_CHARS_MAX: Final = 256
_OWN_LOGGER: Final = "comfy_airlock"


class PackLogs:
    """What one pack's workers log."""

    def __init__(self, pack: str) -> None:
        self._pack = pack
        self._names: set[str] = set()

    def handle(self, event: Any) -> None:
        """Takes the value of an event with records."""
        if not isinstance(event, dict):
            return
        fields = cast("dict[str, Any]", event)
        records = fields.get("records")
        for each in cast("list[Any]", records) if isinstance(records, list) else []:
            if isinstance(each, dict):
                self._log(cast("dict[str, Any]", each))
        dropped = fields.get("dropped")
        if type(dropped) is int and dropped > 0:
            said = "pack %s: %d log records were dropped on their way here; its log file has them"
            logging.getLogger(_OWN_LOGGER).warning(said, self._pack, dropped)

    def _log(self, fields: dict[str, Any]) -> None:
        name, level, message = fields.get("name"), fields.get("level"), fields.get("message")
        if not isinstance(name, str) or type(level) is not int or not isinstance(message, str):
            return
        logger = self._logger(name)
        if not logger.isEnabledFor(level):
            return
        pid = _whole(fields.get("pid"))
        shown: dict[str, Any] = {
            "name": name[:_NAME_CHARS_MAX],
            "levelno": level,
            "levelname": logging.getLevelName(level),
            "msg": message[:LOG_TEXT_CHARS_MAX],
            "args": None,
            "pathname": _text(fields.get("path")),
            "filename": _text(fields.get("path")).rpartition("/")[2],
            "module": _text(fields.get("path")).rpartition("/")[2].removesuffix(".py"),
            "lineno": _whole(fields.get("line")),
            "funcName": _text(fields.get("function")),
            "threadName": _text(fields.get("thread")),
            "exc_text": _text(fields.get("exception")) or None,
            "process": pid,
            "processName": f"pack {self._pack}",
            "pack": self._pack,
            "pid": pid,
        }
        created = fields.get("created")
        if isinstance(created, float):
            shown.update(created=created, msecs=created % 1 * 1000)
        logger.handle(logging.makeLogRecord(shown))

    def _logger(self, name: str) -> logging.Logger:
        if name not in self._names:
            if len(self._names) >= _LOGGERS_MAX or len(name) > _NAME_CHARS_MAX:
                return logging.getLogger(_OWN_LOGGER)
            self._names.add(name)
        return logging.getLogger(name)


def _text(value: object) -> str:
    return value[:LOG_TEXT_CHARS_MAX] if isinstance(value, str) else ""


def _whole(value: object) -> int:
    return value if type(value) is int else 0
