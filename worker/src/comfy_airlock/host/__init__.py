"""The host's side: connect to a server, open packs, call their nodes."""
