"""Bearer keys. Promises: read from a file at start, compared in constant time, never logged."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from pathlib import Path

from saccade.service.errors import SaccadeError, SettingsError


class Unauthorized(SaccadeError):
    """No key was given."""


class Forbidden(SaccadeError):
    """A key was given, and it is not one of ours."""


class ApiKeys:
    """Accepts any of its keys; without keys, accepts everybody."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = [key.encode() for key in keys]

    @classmethod
    def from_file(cls, path: Path | None) -> ApiKeys:
        """One key per line. Raises SettingsError for a file that cannot be read or holds none."""
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
        """The number of the key; None where none is asked for. Raises Unauthorized or Forbidden."""
        if not self._keys:
            return None
        scheme, _, given = (authorization or b"").partition(b" ")
        if scheme.lower() != b"bearer" or not given:
            raise Unauthorized("this server asks for a key: send `Authorization: Bearer <key>`")
        # All keys are compared, so the time does not tell which one nearly matched.
        matches = [hmac.compare_digest(given.strip(), key) for key in self._keys]
        if not any(matches):
            raise Forbidden("this key is not known here")
        return matches.index(True)
