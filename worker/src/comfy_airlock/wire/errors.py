"""The closed set of errors that Airlock itself raises. Twin of ``src/transport/errors.ts``.

An exception raised by a node is not one of these: it is rebuilt as its own type, see ``exceptions.py``.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final, cast

ERROR_CODES: Final = frozenset(
    {
        "protocol_error",
        "unsupported_version",
        "unauthorized",
        "bad_request",
        "limit_exceeded",
        "manifest_invalid",
        "environment_failed",
        "pack_not_open",
        "pack_held",
        "worker_start_failed",
        "worker_died",
        "reference_gone",
        "lease_gone",
        "node_not_found",
        "node_invalid",
        "value_unsupported",
        "value_invalid",
        "remote_exception",
        "cancelled",
        "deadline_exceeded",
        "server_stopping",
        "disconnected",
        "workflow_invalid",
        "internal_error",
    }
)

_DETAILS: Final = ("hint", "pack", "exit", "log", "stack")


class AirlockError(Exception):
    """An error of the closed set: what happened, to whom, and what to do.

    Attributes:
        code: one of :data:`ERROR_CODES`.
        message: what happened, in a sentence.
        hint: what the reader can do about it.
        pack: name of the pack that it is about.
        exit: how a worker ended, e.g. ``killed by SIGKILL``.
        log: the last lines of a worker's log or of a tool's output.
        stack: the Python stack that a worker left when it crashed.
    """

    _by_code: ClassVar[dict[str, type[AirlockError]]] = {}
    _default_code: ClassVar[str] = "internal_error"

    def __init_subclass__(cls, *, code: str | None = None) -> None:
        super().__init_subclass__()
        if code is not None:
            cls._default_code = code
            AirlockError._by_code[code] = cls

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        hint: str | None = None,
        pack: str | None = None,
        exit: str | None = None,
        log: str | None = None,
        stack: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code or self._default_code
        self.message = message
        self.hint = hint
        self.pack = pack
        self.exit = exit
        self.log = log
        self.stack = stack

    def __str__(self) -> str:
        parts = [self.message]
        if self.log and self.log.strip():
            parts.append(self.log.rstrip())
        if self.stack and self.stack.strip():
            parts.append(self.stack.rstrip())
        if self.hint:
            parts.append(f"→ {self.hint}")
        return "\n".join(parts)

    def to_wire(self) -> dict[str, Any]:
        """The error as the body of an ERROR frame."""
        wire: dict[str, Any] = {"code": self.code, "message": self.message}
        for name in _DETAILS:
            value = getattr(self, name)
            if value is not None:
                wire[name] = value
        return wire

    def fresh(self) -> AirlockError:
        """The same error without a traceback, to be raised to one of several callers."""
        return AirlockError.from_wire(self.to_wire())

    @staticmethod
    def from_wire(body: object) -> AirlockError:
        """The error that an ERROR frame's decoded body stands for, as the class of its code."""
        fields = cast("dict[str, Any]", body) if isinstance(body, dict) else {}
        code, message = fields.get("code"), fields.get("message")
        if not isinstance(code, str) or code not in ERROR_CODES or not isinstance(message, str):
            return ProtocolError("the peer sent an error without a known code and a message")
        details = {name: fields[name] for name in _DETAILS if isinstance(fields.get(name), str)}
        return AirlockError._by_code.get(code, AirlockError)(message, code=code, **details)


class ProtocolError(AirlockError, code="protocol_error"):
    """A peer broke the wire protocol; its connection is closed."""


class Unauthorized(AirlockError, PermissionError, code="unauthorized"):
    """This peer may not connect here, or may not do what it asked for."""


class BadRequest(AirlockError, ValueError, code="bad_request"):
    """A control message or an argument is malformed."""


class LimitExceeded(AirlockError, code="limit_exceeded"):
    """Something is larger or more numerous than a limit allows."""


class ManifestInvalid(AirlockError, ValueError, code="manifest_invalid"):
    """A pack's manifest is missing or wrong."""


class EnvironmentFailed(AirlockError, code="environment_failed"):
    """A pack's Python environment could not be made."""


class PackHeld(AirlockError, code="pack_held"):
    """Too many of the pack's workers died: none is started until somebody says so, or the pack is edited."""


class WorkerDied(AirlockError, code="worker_died"):
    """The worker process ended while the call was under way."""


class ReferenceGone(AirlockError, ReferenceError, code="reference_gone"):
    """An object is gone that a reference named: its process ended, or the reference was released."""


class LeaseGone(AirlockError, code="lease_gone"):
    """The memory of a tensor was taken back by its owner before it was looked at."""


class NodeNotFound(AirlockError, LookupError, code="node_not_found"):
    """The pack has no such node."""


class NodeInvalid(AirlockError, code="node_invalid"):
    """The pack or the node does not follow ComfyUI's conventions."""


class ValueUnsupported(AirlockError, TypeError, code="value_unsupported"):
    """A value has a type that cannot cross the wire."""


class ValueInvalid(AirlockError, ValueError, code="value_invalid"):
    """Bytes from a peer are not a valid value."""


class Cancelled(AirlockError, code="cancelled"):
    """The caller cancelled the call."""


class DeadlineExceeded(AirlockError, TimeoutError, code="deadline_exceeded"):
    """The call took longer than its deadline."""


class ServerStopping(AirlockError, code="server_stopping"):
    """The server is shutting down and takes no new calls."""


class Disconnected(AirlockError, ConnectionError, code="disconnected"):
    """The connection to the server ended."""


class RemoteError(Exception):
    """A node raised an exception whose class this process has not loaded.

    Its dynamic subclass carries the remote class's name, and derives from the nearest base that is loaded here, so that
    ``except ValueError`` still catches a pack's own subclass of it.
    """


class RemoteTraceback(Exception):
    """The traceback of an exception in another process: the cause of the exception as it is raised here."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text.rstrip()}\n"""'
