"""Checks bearer keys of a file. Promises: compared in constant time, held only as hashes, never logged.

One key a line, best as `saccade keys new` prints it: `sha256:<64 hex digits> scopes=predict,read name=phone-app`. A key
may also stand there itself. Without scopes a key may predict and read. Lines that begin with # are comments.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from saccade.service.errors import SaccadeError, SettingsError

MAX_FILE_BYTES = 1024 * 1024
_HASHED = "sha256:"
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Scope(StrEnum):
    """What a key may do."""

    PREDICT = "predict"
    READ = "read"  # models, metrics, pages
    ADMIN = "admin"  # have models loaded


DEFAULT_SCOPES = frozenset({Scope.PREDICT, Scope.READ})


class Unauthorized(SaccadeError):
    """The request has no key."""


class Forbidden(SaccadeError):
    """The request has a key that this server does not know, or that may not do this."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    digest: bytes  # SHA-256 of the key
    scopes: frozenset[Scope] = DEFAULT_SCOPES
    name: str = ""
    is_hashed: bool = True  # in the file

    @property
    def line(self) -> str:
        """The key's line of a file."""
        scopes = ",".join(scope for scope in Scope if scope in self.scopes)
        return f"{_HASHED}{self.digest.hex()} scopes={scopes}" + (f" name={self.name}" if self.name else "")


class ApiKeys:
    """Accepts any of its keys; without a file it accepts every request. Belongs to one event loop."""

    def __init__(self, keys: Iterable[ApiKey], *, is_open: bool = False) -> None:
        self._keys = tuple(keys)
        self._is_open = is_open

    @classmethod
    def from_file(cls, path: Path | None) -> ApiKeys:
        """Raises SettingsError for a file that cannot be read, has a bad line, or holds no key."""
        if path is None:
            return cls([], is_open=True)
        try:
            keys, problems = keys_from(read_keys_file(path))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise SettingsError(f"SACCADE_API_KEYS_FILE: cannot read {path}: {reason}") from error
        if problems:
            raise SettingsError(f"SACCADE_API_KEYS_FILE: {path}: {problems[0]}")
        if not keys:
            raise SettingsError(f"SACCADE_API_KEYS_FILE: {path} holds no key")
        return cls(keys)

    @property
    def plain_count(self) -> int:
        """How many keys stand in the file themselves."""
        return sum(not key.is_hashed for key in self._keys)

    def replace(self, keys: Iterable[ApiKey]) -> None:
        """From now on these keys are accepted, and no others: none where there are none."""
        self._keys = tuple(keys)

    def ensure(self, authorization: bytes | None, scope: Scope) -> ApiKey | None:
        """Returns the request's key; None where no key is needed. Raises Unauthorized or Forbidden."""
        if self._is_open:
            return None
        scheme, _, given = (authorization or b"").partition(b" ")
        if scheme.lower() != b"bearer" or not given:
            raise Unauthorized("this server asks for a key: send `Authorization: Bearer <key>`")
        digest = hashlib.sha256(given.strip()).digest()
        # All keys are compared, so that the time taken does not reveal which one nearly matched.
        matches = [key for key in self._keys if hmac.compare_digest(digest, key.digest)]
        if not matches:
            raise Forbidden("this key is not known here")
        if scope not in matches[0].scopes:
            raise Forbidden(f"this key may not {scope}; its scopes are {', '.join(sorted(matches[0].scopes))}")
        return matches[0]


def read_keys_file(path: Path) -> str:
    """Raises OSError or ValueError."""
    with path.open("rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"it has more than {MAX_FILE_BYTES} bytes")
    return content.decode("utf-8")


def keys_from(text: str) -> tuple[list[ApiKey], list[str]]:
    """The keys of a file, and what is wrong with its other lines, by number and without repeating a key."""
    keys: dict[bytes, ApiKey] = {}
    problems = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            key = _key_from(line.split())
            if key.digest in keys:
                raise ValueError("this key stands there twice")
            keys[key.digest] = key
        except ValueError as error:
            problems.append(f"line {number}: {error}")
    return list(keys.values()), problems


def key_named(key: str, scopes: Iterable[Scope] = DEFAULT_SCOPES, name: str = "", *, is_hashed: bool = True) -> ApiKey:
    return ApiKey(hashlib.sha256(key.encode()).digest(), frozenset(scopes), name, is_hashed)


def _key_from(words: list[str]) -> ApiKey:
    """Raises ValueError."""
    key, *fields = words
    given = dict(field.partition("=")[::2] for field in fields)
    if len(given) != len(fields) or not set(given) <= {"scopes", "name"}:
        raise ValueError("a key is followed by scopes=… and name=… alone, each once")
    names = given["scopes"].split(",") if "scopes" in given else list(DEFAULT_SCOPES)
    if not set(names) <= set(Scope):
        raise ValueError(f"scopes are {', '.join(Scope)}, separated by commas")
    scopes = frozenset(map(Scope, names))
    if not key.startswith(_HASHED):
        return key_named(key, scopes, given.get("name", ""), is_hashed=False)
    digest = key.removeprefix(_HASHED)
    if not _DIGEST.fullmatch(digest):
        raise ValueError("sha256: is followed by 64 hexadecimal digits, as `saccade keys hash` prints them")
    return ApiKey(bytes.fromhex(digest), scopes, given.get("name", ""))
