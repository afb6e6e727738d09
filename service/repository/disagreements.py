"""Keeps the images on which two versions disagree most, in `.shadow` of the repository: few, and for a week at most."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from pathlib import Path

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from saccade.service.repository.confined_files import names_in, opened_directory, read_file, replace_file

KEPT = 20  # per pair of versions
_FOLDER = ".shadow"
_EXPIRES_S = 7 * 86_400
_MOST_BYTES = 64 * 1024
_MOST_PICTURE_BYTES = 4 * 1024 * 1024
_PICTURE = ".picture"  # the file as it was sent, in whatever format


class Disagreement(BaseModel):
    """One image to which two versions gave different answers."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: str
    stable: int
    candidate: int
    request_id: str
    at: str  # ISO 8601, UTC
    agreement: float
    figures: dict[str, float]
    stable_said: str
    candidate_said: str
    picture: str = ""  # path of the picture, where it was kept


def keep_disagreement(
    repository: Path, found: Disagreement, picture: bytes | None, now_s: float | None = None
) -> float:
    """Keeps it, unless so many worse ones are there; returns below which agreement the next one would be kept.

    Raises OSError when the folder cannot be written.
    """
    now_s = time.time() if now_s is None else now_s
    parts = (_FOLDER, found.model, f"{found.stable}-{found.candidate}")
    with opened_directory(repository, parts, create=True) as directory:
        stem = f"{found.agreement:.6f}-{int(now_s)}-{secrets.token_hex(4)}"
        if picture is not None and len(picture) <= _MOST_PICTURE_BYTES:
            replace_file(directory, f"{stem}{_PICTURE}", picture)
        try:
            replace_file(directory, f"{stem}.json", orjson.dumps(found.model_dump()))
        except OSError:  # a picture of which nothing is said would stay, on a volume that is full
            _remove(directory, f"{stem}{_PICTURE}")
            raise
        names = names_in(repository, parts)
        stems = sorted({name.rpartition(".")[0] for name in names if name.endswith(".json")})
        fresh = [each for each in stems if _is_fresh(each, now_s)]
        kept = {*fresh[:KEPT]}
        for name in names:
            if name.rpartition(".")[0] not in kept and not name.startswith("."):
                _remove(directory, name)
    return float(fresh[KEPT - 1].partition("-")[0]) if len(fresh) >= KEPT else 1.0


def disagreements(repository: Path, model: str, now_s: float | None = None) -> list[Disagreement]:
    """Returns what is kept of a model, pair by pair with the newest first, worst first. Raises OSError."""
    now_s = time.time() if now_s is None else now_s
    found = []
    for pair in sorted(names_in(repository, (_FOLDER, model)), key=_newest_pair):
        parts = (_FOLDER, model, pair)
        names = names_in(repository, parts)
        for name in names:
            if name.endswith(".json") and _is_fresh(name, now_s):
                document = _read(repository, parts, name)
                if document is not None:
                    picture = f"{name.removesuffix('.json')}{_PICTURE}"
                    has_picture = picture in names
                    path = str(repository.joinpath(*parts, picture)) if has_picture else ""
                    found.append(document.model_copy(update={"picture": path}))
    return found


def kept_picture(repository: Path, found: Disagreement) -> bytes | None:
    """Returns the picture's file as it was sent; None where it was not kept, or is gone by now."""
    if not found.picture:
        return None
    parts = (_FOLDER, found.model, f"{found.stable}-{found.candidate}")
    try:
        with opened_directory(repository, parts) as directory:
            return read_file(directory, Path(found.picture).name, _MOST_PICTURE_BYTES)
    except OSError:
        return None


def _read(repository: Path, parts: tuple[str, ...], name: str) -> Disagreement | None:
    try:
        with opened_directory(repository, parts) as directory:
            return Disagreement.model_validate_json(read_file(directory, name, _MOST_BYTES))
    except (OSError, ValidationError):  # removed meanwhile, or damaged
        return None


def _remove(directory: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):  # another process tidies up, too
        os.unlink(name, dir_fd=directory)


def _is_fresh(stem: str, now_s: float) -> bool:
    """A time far ahead is of a clock that was set back since; it would never expire."""
    return abs(now_s - _written_s(stem)) < _EXPIRES_S


def _written_s(stem: str) -> float:
    written = stem.split("-")[1:2]
    return float(written[0]) if written and written[0].isdigit() else 0.0


def _newest_pair(name: str) -> tuple[int, int]:
    stable, _, candidate = name.partition("-")
    return (-int(candidate), -int(stable)) if stable.isdigit() and candidate.isdigit() else (0, 0)
