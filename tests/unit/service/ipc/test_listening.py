"""Connections that wait to be accepted are taken along when a port is closed."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from saccade.service.ipc.listening import accepted, listen, reserve


def test_connections_that_wait_are_accepted_and_no_more_are_waited_for() -> None:
    with ExitStack() as stack:
        reservation = stack.enter_context(reserve("127.0.0.1", 0))
        listener = stack.enter_context(listen(*reservation.getsockname()))
        listener.setblocking(False)
        clients = [stack.enter_context(socket.create_connection(listener.getsockname())) for _ in range(3)]

        found = [stack.enter_context(connection) for connection in accepted(listener)]

        assert {each.getpeername() for each in found} == {each.getsockname() for each in clients}
        assert accepted(listener) == []
