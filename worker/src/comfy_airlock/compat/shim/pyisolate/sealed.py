"""The extension of sealed workers."""

from comfy_airlock.compat.sealed import SealedNodeExtension as SealedNodeExtension
