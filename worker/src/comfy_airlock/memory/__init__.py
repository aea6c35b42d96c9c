"""Tensors by lease: segments, arenas, leases and receipts. PROTOCOL.md, "Segments" and "Leases", is the contract."""
