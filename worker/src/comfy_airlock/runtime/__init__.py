"""The worker's side: the process that runs one pack. Started by a server, never imported by a host."""
