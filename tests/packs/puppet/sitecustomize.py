"""Makes this pack's worker a puppet: it connects to the server, and from then on a test says and hears everything.

It connects to the socket that PUPPET_STRINGS names too, tells its token there on a line, and passes bytes from each to
the other. It reads from the one only as fast as the other takes it, so a test that does not read is a worker that
doesn't.

Where PUPPET_LANES names a socket, it tells there what comes over its descriptor lane: its process id on a line, and a
line for each descriptor, with what it is, its number, and the descriptor that it is kept open as.
"""

import os
import socket
import struct
import threading


def _connect(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    return connection


def _tell_of_lane(lane: socket.socket, listener: socket.socket) -> None:
    while True:
        message, descriptors, _, _ = socket.recv_fds(lane, 8, 1)
        if not message:
            return
        what, number = struct.unpack("<II", message)
        listener.sendall(f"{what} {number} {descriptors[0]}\n".encode())


def _take_lane(server: socket.socket) -> bytes:
    """Reads the beginning of the welcome, with the lane that comes along where there is one."""
    welcome, descriptors, _, _ = socket.recv_fds(server, 65536, 1)
    if descriptors:
        listener = _connect(os.environ["PUPPET_LANES"])
        listener.sendall(f"{os.getpid()}\n".encode())
        lane = socket.socket(fileno=descriptors[0])
        threading.Thread(target=_tell_of_lane, args=(lane, listener), daemon=True).start()
    return welcome


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    try:
        while chunk := source.recv(65536):
            target.sendall(chunk)
    except OSError:
        pass  # The other side is gone, which is the end of the puppet.
    os._exit(0)


server = _connect(os.environ["AIRLOCK_SOCKET"])
strings = _connect(os.environ["PUPPET_STRINGS"])
strings.sendall(os.environ["AIRLOCK_TOKEN"].encode() + b"\n")


def _hear() -> None:
    strings.sendall(_take_lane(server))
    _pass_on(server, strings)


threading.Thread(target=_hear).start()
_pass_on(strings, server)
