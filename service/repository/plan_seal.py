"""Vouches for plan records. Promises: with a secret nothing passes without its HMAC-SHA256; else nothing is asked.

RFC 2104. Plans are programs, so who can change one decides what the GPU runs.
"""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from saccade.service.errors import SettingsError

FEWEST_SECRET_BYTES = 32
MOST_SEAL_BYTES = 256  # two lines at most
_MOST_FILE_BYTES = 64 * 1024


def engines_secret(path: Path) -> bytes:
    """The secret in a file, without the line's end. Raises SettingsError."""
    try:
        with path.open("rb") as file:
            secret = file.read(_MOST_FILE_BYTES).rstrip(b"\r\n")
    except OSError as error:
        raise SettingsError(f"SACCADE_ENGINES_KEY_FILE: cannot read {path}: {error.strerror}") from error
    if len(secret) < FEWEST_SECRET_BYTES:
        raise SettingsError(
            f"SACCADE_ENGINES_KEY_FILE: {path} holds {len(secret)} bytes, at least {FEWEST_SECRET_BYTES} are needed; "
            "make one with `openssl rand -hex 32`"
        )
    return secret


class Seal:
    """HMACs of one secret, one hexadecimal line per content that counts."""

    def __init__(self, secret: bytes | None) -> None:
        self._secret = secret

    @property
    def is_asked(self) -> bool:
        return self._secret is not None

    def of(self, *contents: bytes) -> bytes:
        return b"".join(f"{self._mac(content)}\n".encode() for content in contents)

    def fits(self, content: bytes, seal: bytes) -> bool:
        """Whether one of the seal's lines is of `content`; always, where nothing is asked."""
        wanted = self._mac(content).encode()
        return not self.is_asked or any(hmac.compare_digest(wanted, line) for line in seal.split(b"\n"))

    def _mac(self, content: bytes) -> str:
        return hmac.new(self._secret or b"", content, hashlib.sha256).hexdigest()
