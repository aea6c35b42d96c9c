"""An extension as pyisolate loads it; what it does is its type, in echo_extension.py."""
