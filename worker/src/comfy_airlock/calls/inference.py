"""torch's inference mode, in which ComfyUI runs nodes. It belongs to the thread that enters it: the nodes'."""

from __future__ import annotations

import sys
from typing import Any


class InferenceMode:
    """Entered once, as soon as something has imported torch, and never left: nothing else runs on the nodes' thread."""

    def __init__(self) -> None:
        self._entered: Any = None
        #: Whether what runs here is to run in it.
        self.is_wanted = True

    def enter(self) -> None:
        """Enters the mode, where torch is there by now. Cheap, so that it may be asked for before every call."""
        if self._entered is not None or not self.is_wanted or "torch" not in sys.modules:
            return
        torch = sys.modules["torch"]
        if hasattr(torch, "inference_mode"):
            self._entered = torch.inference_mode()
            self._entered.__enter__()
