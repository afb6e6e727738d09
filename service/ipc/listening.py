"""Reserves ports for the supervisor, and opens a listening socket on them for each API process.

Each API process has a listening socket of its own (SO_REUSEPORT), and the kernel spreads connections over them: with
one shared socket, the first process to run takes whole bursts of connections while the others idle. When a process
dies, its socket is closed and gets no more connections; the supervisor's socket, which never listens, keeps the port.
"""

from __future__ import annotations

import socket
from contextlib import suppress

from saccade.service.errors import SettingsError

_BACKLOG = 2048


def reserve(host: str, port: int, setting: str = "SACCADE_PORT") -> socket.socket:
    """Binds the port without listening on it; port 0 takes a free one. Raises SettingsError when the port is taken."""
    # The first attempt is without SO_REUSEPORT: with it, two servers of one user would share the port unnoticed.
    try:
        with _socket_for(host) as probe:
            probe.bind((host, port))
            port = int(probe.getsockname()[1])
        reservation = _socket_for(host)
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reservation.bind((host, port))
    except OSError as error:
        raise SettingsError(f"cannot listen on {host}:{port}: {error.strerror}; set {setting}") from error
    return reservation


def listen(host: str, port: int) -> socket.socket:
    """Opens the calling process's own listening socket on a reserved port."""
    listener = _socket_for(host)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((host, port))
    listener.listen(_BACKLOG)
    return listener


def accepted(listener: socket.socket) -> list[socket.socket]:
    """The connections that wait for a listening socket of an event loop."""
    found = []
    with suppress(OSError):  # there is none, or no descriptor is left
        while True:
            found.append(listener.accept()[0])
    return found


def _socket_for(host: str) -> socket.socket:
    created = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    created.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return created
