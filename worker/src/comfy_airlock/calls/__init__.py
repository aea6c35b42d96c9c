"""Calls between two peers, in both directions: what host and worker have in common above the wire."""
