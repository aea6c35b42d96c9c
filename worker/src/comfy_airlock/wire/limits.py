"""Bounds that a Python peer checks itself. Twin of ``src/transport/limits.ts``."""

from typing import Final

FRAME_BYTES_MAX: Final = 16 * 1024 * 1024
"""Bytes of one frame after its header: bounds what a receiver buffers for it."""

FRAME_ATTACHMENTS_MAX: Final = 4096
"""Attachments of one frame: bounds the work that one header can ask for."""

VALUE_EXTENSIONS_DEEP_MAX: Final = 64
"""Extensions inside one another: bounds the decoder's stack. Each holds a list, so this is a depth of 128 there."""

ARRAY_AXES_MAX: Final = 64
"""Axes of one array: numpy and torch have no more."""

EXCEPTIONS_DEEP_MAX: Final = 8
"""Exceptions held by one another that are sent whole: bounds what one exception grows to where they share others."""

SOCKET_PATH_BYTES_MAX: Final = 107
"""Bytes of a Unix socket's path, without its terminating zero."""

CALLS_MAX: Final = 65_536
"""Calls that the other side of a channel may have under way here: bounds the queue of a peer that is flooded."""

INCOMING_BYTES_MAX: Final = 1024 * 1024 * 1024
"""Bytes of the calls that the other side of a channel has under way here: past it, the channel ends."""

INCOMING_BYTES_READ_ON: Final = 64 * 1024 * 1024
"""Bytes of such calls past which nobody reads who has no need to: the other side's sends then wait in the kernel."""

EVENT_BYTES_MAX: Final = 256 * 1024 * 1024
"""Bytes of one other side's events, headers included, that may wait for their handlers: further ones are dropped."""

SERVANTS_MAX: Final = 32
"""Threads of a host that serve what one pack asks of it while nobody waits for that pack: further requests wait."""

PROGRESS_BYTES_MAX: Final = 1024 * 1024
"""Bytes of one call's progress, headers included, that may wait for its caller: past it the oldest goes."""

GRACE_SECONDS: Final = 10.0
"""How long a worker may take to answer a call that was given up, before it is ended."""

SURVEY_REFERENCES_MAX: Final = 50_000
"""References that one survey of a process looks at: bounds how long it keeps its thread, and stops all others."""

SURVEY_CONTAINER_ITEMS_MAX: Final = 10_000
"""Items of a list, dict, tuple or set that a survey looks into: a larger one, and what it holds, counts as alive."""

SURVEY_SECONDS_MAX: Final = 2.0
"""How long a host waits for a worker's survey: one that is at work longer is left out."""

CYCLES_QUIET_SECONDS: Final = 5.0
"""How long nothing is exchanged by reference before cycles are looked for."""

CYCLES_WAIT_SECONDS_MAX: Final = 300.0
"""The longest pause between two looks: it doubles from the one before where nothing is found."""
LOG_RECORDS_MAX: Final = 1000
"""Log records of a worker's that may wait to be sent to the host: further ones are in its log file only."""

LOG_TEXT_CHARS_MAX: Final = 32 * 1024
"""Characters of a log record's message, and of its traceback; the rest is in the log file only."""
