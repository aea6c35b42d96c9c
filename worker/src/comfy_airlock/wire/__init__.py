"""Frames, values and connections: what crosses between processes. Imports nothing else of the package."""
