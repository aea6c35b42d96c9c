"""An extension as pyisolate loads it; what it does is its type, in workload_extension.py."""
