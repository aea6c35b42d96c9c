"""A pack without a manifest: its host says what it asks for."""

NAME = __name__
