"""The header that names a priority."""

from __future__ import annotations

import pytest

from saccade.service.api.priority import Priority, priority_from
from saccade.service.errors import BadParameter


@pytest.mark.parametrize(
    ("header", "priority"),
    [(None, Priority.NORMAL), (b"high", Priority.HIGH), (b" Low ", Priority.LOW), (b"NORMAL", Priority.NORMAL)],
)
def test_priority_is_read_from_its_header(header: bytes | None, priority: Priority) -> None:
    assert priority_from(header) is priority


@pytest.mark.parametrize("header", [b"", b"urgent", b"high,low", b"\xff"])
def test_other_priorities_are_refused(header: bytes) -> None:
    with pytest.raises(BadParameter, match="high, normal, low"):
        priority_from(header)
