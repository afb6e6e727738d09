"""Checks bearer keys, which are read from a file at start, compared in constant time, and never logged."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from pathlib import Path

from saccade.service.errors import SaccadeError, SettingsError


class Unauthorized(SaccadeError):
    """The request has no key."""


class Forbidden(SaccadeError):
    """The request has a key that this server does not know."""


class ApiKeys:
    """Accepts any of its keys; without keys it accepts every request."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = [key.encode() for key in keys]

    @classmethod
    def from_file(cls, path: Path | None) -> ApiKeys:
        """Reads one key per line. Raises SettingsError for a file that cannot be read or holds no key."""
        if path is None:
            return cls([])
        try:
            keys = [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
        except OSError as error:
            raise SettingsError(f"SACCADE_API_KEYS_FILE: cannot read {path}: {error.strerror}") from error
        if not keys:
            raise SettingsError(f"SACCADE_API_KEYS_FILE: {path} holds no key")
        return cls(keys)

    def ensure(self, authorization: bytes | None) -> int | None:
        """Returns the number of the request's key; None where no key is needed. Raises Unauthorized or Forbidden."""
        if not self._keys:
            return None
        scheme, _, given = (authorization or b"").partition(b" ")
        if scheme.lower() != b"bearer" or not given:
            raise Unauthorized("this server asks for a key: send `Authorization: Bearer <key>`")
        # All keys are compared, so that the time taken does not reveal which one nearly matched.
        matches = [hmac.compare_digest(given.strip(), key) for key in self._keys]
        if not any(matches):
            raise Forbidden("this key is not known here")
        return matches.index(True)
