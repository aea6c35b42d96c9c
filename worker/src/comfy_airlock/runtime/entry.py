"""What a module finds that a pack's workers run besides the pack's nodes: its host named it as it opened the pack.

The worker imports the module and calls its ``enter`` with this, once, before it takes calls. That returns methods by
name, which the host calls as it calls ``run``: by ``Pack.workers``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from comfy_airlock.calls.inference import InferenceMode
    from comfy_airlock.calls.pair import Pair


class EntryContext(NamedTuple):
    """One worker, as it starts."""

    pack: str
    folder: str
    settings: str
    """What the host handed over, as it is."""
    pair: Callable[[], Pair]
    """The pair with the host, once calls are taken."""
    inference: InferenceMode
