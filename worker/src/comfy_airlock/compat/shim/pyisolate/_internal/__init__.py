"""Names that hosts import although they are not public."""

from comfy_airlock.compat.extension import Extension as Extension
