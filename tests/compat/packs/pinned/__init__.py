"""A pack that pins a version which its host has another one of."""

import six

NODE_CLASS_MAPPINGS = {}
SIX = six.__version__
