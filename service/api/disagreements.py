"""Has the worst disagreements of a candidate with stable kept; never more than a few files per pair are written."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import structlog

from saccade.service.core import VersionKey
from saccade.service.repository.disagreements import Disagreement, keep_disagreement
from saccade.service.vision.comparison import Comparison

log = structlog.get_logger()

_KEPT_PAIRS = 64
_FLOOR_HOLDS_S = 3600.0  # what is kept expires
_SAME = 1.0 - 1e-6


class Seen(NamedTuple):
    """Which request was answered by which version, and what other version was asked."""

    request_id: str
    stable: VersionKey
    candidate: int


class Disagreements:
    """The writer of one API process; only its event loop may call it."""

    def __init__(self, repository: Path, keeps_pictures: bool) -> None:
        self._repository = repository
        self._keeps_pictures = keeps_pictures
        self._floors: dict[tuple[VersionKey, int], tuple[float, float]] = {}  # agreement to fall below, until when
        self._is_writing = False
        self._last_error = ""

    async def note(self, seen: Seen, found: Comparison, picture: bytes | None) -> None:
        """Keeps it if it is among the worst. While one is being written, others are passed over."""
        pair = (seen.stable, seen.candidate)
        now_s = time.monotonic()
        floor, until_s = self._floors.get(pair, (_SAME, now_s))
        if self._is_writing or found.agreement >= min(_SAME, floor if now_s < until_s else _SAME):
            return
        document = Disagreement(
            model=seen.stable.model,
            stable=seen.stable.version,
            candidate=seen.candidate,
            request_id=seen.request_id,
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            agreement=found.agreement,
            figures={name: round(value, 6) for name, value in found.figures.items()},
            stable_said=found.stable,
            candidate_said=found.candidate,
        )
        self._is_writing = True
        try:
            kept = picture if self._keeps_pictures else None
            floor = await asyncio.to_thread(keep_disagreement, self._repository, document, kept)
        except OSError as error:
            floor = 0.0  # a volume that is full or read-only is not tried again for this pair
            if str(error) != self._last_error:
                log.warning("disagreements_not_kept", model=seen.stable.model, reason=error.strerror)
            self._last_error = str(error)
        finally:
            self._is_writing = False
        if len(self._floors) >= _KEPT_PAIRS:
            self._floors.clear()
        self._floors[pair] = (floor, now_s + _FLOOR_HOLDS_S)
