"""What a host finds that speaks pyisolate: its names and shapes, over Airlock's server, workers and calls.

``shim/`` holds a package named ``pyisolate`` that only re-exports what lies here. It is never installed under that
name: ``airlock launch`` puts it on the host's path, and a worker of such a host puts it on its own.
docs/compatibility.md tells what is the same and what is not.
"""
