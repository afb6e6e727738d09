"""Ports for servers that must know theirs beforehand."""

from __future__ import annotations

import socket


def free_port() -> int:
    """Returns a port of this machine that nobody listens on at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
