"""Where a repository lies: in a directory, or in an object store, of which this account keeps a copy in its cache.

A URL is given in the place of a directory, so it arrives as a path: `s3://models/vision` as `s3:/models/vision`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

from saccade.service.errors import RepositoryError

SCHEMES = ("s3", "gs", "az", "https")
_ADDRESS = "store.json"  # beside the copy: what it is a copy of
_VERSIONS = "versions"


def url_of(repository: Path) -> str | None:
    """The URL of a repository in an object store, None for a directory.

    Raises RepositoryError for a URL that names no bucket or host, or that carries a secret.
    """
    first, *others = repository.parts or ("",)
    scheme, colon, after = first.partition(":")
    if scheme not in SCHEMES or colon != ":" or after:
        return None
    rest = "/".join(others)
    if not rest:
        raise RepositoryError(f"{scheme}:// names no bucket; say {scheme}://BUCKET/PREFIX")
    if "@" in rest.partition("/")[0] or "?" in rest or "#" in rest:  # not repeated, because logs would keep it
        raise RepositoryError(
            f"a {scheme}:// repository with a password or a query in it is refused: credentials belong into the "
            "environment, by the names that the cloud's own tools use"
        )
    return f"{scheme}://{rest}"


def shown(repository: Path) -> str:
    """A repository as people write it."""
    return url_of(repository) or str(repository)


def copy_of(url: str) -> Path:
    """The directory of this account that holds the copy of a repository; it looks like any other repository.

    Raises RepositoryError for an account without a home directory.
    """
    name = re.sub(r"[^a-z0-9]+", "-", url.partition("://")[2].lower()).strip("-")[:40]
    return _caches() / f"{name}-{hashlib.sha256(url.encode()).hexdigest()[:12]}" / _VERSIONS


def directory_of(repository: Path) -> Path:
    """Where the versions of a repository are read from: itself, or the copy of one in an object store."""
    url = url_of(repository)
    return repository if url is None else copy_of(url)


def claim_copy(url: str) -> Path:
    """Makes the directory of the copy, for this account alone, and writes down what it is a copy of. Raises OSError."""
    directory = copy_of(url)
    _caches().mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.mkdir(parents=True, exist_ok=True)
    place = directory.parent / _ADDRESS
    if not place.exists():
        partial = place.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps({"url": url}), "utf-8")
        partial.replace(place)
    return directory


def url_of_copy(repository: Path) -> str | None:
    """What a directory is a copy of; None for every other directory.

    Only this account's own cache is asked: a file in a repository cannot lead a writer to another store.
    """
    if repository.name != _VERSIONS:
        return None
    try:
        if repository.absolute().parent.parent != _caches():
            return None
        url = json.loads((repository.parent / _ADDRESS).read_text("utf-8"))["url"]
    except (OSError, ValueError, KeyError, TypeError, RepositoryError):  # no copy
        return None
    return str(url)


def _caches() -> Path:
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if given.is_absolute():  # the specification of base directories has others ignored
        return given / "saccade" / "repositories"
    try:
        return Path.home() / ".cache" / "saccade" / "repositories"
    except RuntimeError as error:
        raise RepositoryError(
            "a repository in an object store needs a directory for its copy: set XDG_CACHE_HOME"
        ) from error
