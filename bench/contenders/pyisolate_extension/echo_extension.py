"""The extension's type. pyisolate's worker imports it by its name in the host, from the extension's folder."""

from typing import Any

import pyisolate


class EchoExtension(pyisolate.ExtensionBase):
    """One method, a coroutine: it runs on the worker's event loop, with no thread in between."""

    async def echo(self, value: Any) -> Any:
        return value
