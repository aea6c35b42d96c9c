"""One extension."""

from comfy_airlock.compat.extension import Extension as Extension
