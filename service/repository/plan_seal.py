"""Vouches for plan records by HMAC-SHA256 (RFC 2104). With a secret, no record without a valid HMAC is accepted.

Plans are programs: whoever can change a plan decides what the GPU runs. Without a secret, nothing is checked.
"""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from saccade.service.errors import SettingsError

FEWEST_SECRET_BYTES = 32
MOST_SEAL_BYTES = 256  # a seal has at most two lines
_MOST_FILE_BYTES = 64 * 1024


def engines_secret(path: Path) -> bytes:
    """The secret in a file, without the final line break. Raises SettingsError."""
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
    """Makes and checks seals: HMACs under one secret, one hexadecimal line per valid content."""

    def __init__(self, secret: bytes | None) -> None:
        self._secret = secret

    @property
    def is_asked(self) -> bool:
        return self._secret is not None

    def of(self, *contents: bytes) -> bytes:
        return b"".join(f"{self._mac(content)}\n".encode() for content in contents)

    def fits(self, content: bytes, seal: bytes) -> bool:
        """Whether one of the seal's lines belongs to `content`; always true without a secret."""
        return not self.is_asked or self.is_whole(content, seal)

    def is_whole(self, content: bytes, seal: bytes) -> bool:
        """Whether one of the seal's lines belongs to `content`, also without a secret: then it shows damage alone."""
        wanted = self._mac(content).encode()
        return any(hmac.compare_digest(wanted, line) for line in seal.split(b"\n"))

    def _mac(self, content: bytes) -> str:
        return hmac.new(self._secret or b"", content, hashlib.sha256).hexdigest()
