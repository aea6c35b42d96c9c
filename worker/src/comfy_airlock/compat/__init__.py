"""What a host finds that speaks pyisolate: its names and shapes, over Airlock's server, workers and calls.

``shim/`` holds a package named ``pyisolate`` that only re-exports what lies here. It is never installed under that
name: ``airlock launch`` puts it on the host's path, and a worker of such a host puts it on its own.
docs/compatibility.md tells what is the same and what is not.
"""

from importlib.util import find_spec

if find_spec("msgpack") is None:
    # A host has been told by its launcher to import this, and may take a bare ImportError for "there is no pyisolate".
    raise ModuleNotFoundError(
        "Airlock's pyisolate needs msgpack in the host's own environment: pip install msgpack", name="msgpack"
    )
