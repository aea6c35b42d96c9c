"""Makes this pack's worker a puppet: it connects to the server, and from then on a test says and hears everything.

It connects to the socket that PUPPET_STRINGS names too, tells its token there on a line, and passes bytes from each to
the other. It reads from the one only as fast as the other takes it, so a test that does not read is a worker that
doesn't.
"""

import os
import socket
import threading


def _connect(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    return connection


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
threading.Thread(target=_pass_on, args=(server, strings)).start()
_pass_on(strings, server)
