"""Stores what steps made, named by content; a changed artifact is never reused."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import orjson

Detail = Mapping[str, str | float | int | bool]
RECORD_NAME = "step.json"


@dataclass(frozen=True, slots=True)
class Artifact:
    """The directory of a finished step."""

    directory: Path
    digest: str  # identity of the step that made it
    content: str  # SHA-256 over the names and digests of its files
    detail: Detail
    seconds: float

    def file(self, name: str) -> Path:
        return self.directory / name


@dataclass(frozen=True, slots=True)
class StepResult:
    """The outcome of one step: what it made, and whether it is good."""

    step: str
    status: Literal["done", "cached", "lost", "failed"]  # lost: its variants go, the others and the run go on
    artifact: Artifact | None
    seconds: float
    detail: Detail


@dataclass(frozen=True, slots=True)
class StepIdentity:
    """Everything that a step's outcome may depend on; equal identities may share one artifact."""

    step: str
    config: object  # JSON-ready
    inputs: Mapping[str, str]  # content digest by input name
    tools: Mapping[str, str]  # version by tool name
    sources: str  # digest of the source text of all modules that the step imports


def digest_of(identity: StepIdentity) -> str:
    """Returns the SHA-256 of the canonical JSON of an identity."""
    document = {
        "step": identity.step,
        "config": identity.config,
        "inputs": dict(identity.inputs),
        "tools": dict(identity.tools),
        "sources": identity.sources,
    }
    return hashlib.sha256(orjson.dumps(document, option=orjson.OPT_SORT_KEYS)).hexdigest()


def file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def finished_artifact(directory: Path, digest: str) -> Artifact | None:
    """Returns the artifact in `directory`, or None when it is missing, of another step, or its files have changed.

    Side effect: the record's time becomes the time of this use, by which `clean` knows what is needed.
    """
    try:
        record = orjson.loads((directory / RECORD_NAME).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    if not isinstance(record, dict) or record.get("digest") != digest:
        return None
    files = _file_digests(directory)
    if files != record["files"]:
        return None
    with suppress(OSError):  # somebody else's directory may be readable only
        os.utime(directory / RECORD_NAME)
    return Artifact(directory, digest, _content_digest(files), record["detail"], record["seconds"])


@contextmanager
def building(directory: Path) -> Iterator[Path]:
    """Yields a scratch directory beside `directory`, which is removed when the body raises.

    Call `finish` on it as the last thing; it replaces what was in `directory` before.
    """
    scratch = directory.with_name(f".{directory.name}.{os.getpid()}")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def finish(scratch: Path, directory: Path, digest: str, detail: Detail, seconds: float) -> Artifact:
    """Writes the record and renames `scratch` to `directory`."""
    files = _file_digests(scratch)
    record = {"digest": digest, "files": files, "detail": dict(detail), "seconds": seconds}
    (scratch / RECORD_NAME).write_bytes(orjson.dumps(record, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
    if directory.exists():
        shutil.rmtree(directory)
    scratch.rename(directory)
    return Artifact(directory, digest, _content_digest(files), detail, seconds)


def _file_digests(directory: Path) -> dict[str, str]:
    paths = sorted(path for path in directory.rglob("*") if path.is_file() and path.name != RECORD_NAME)
    return {path.relative_to(directory).as_posix(): file_sha256(path) for path in paths}


def _content_digest(files: Mapping[str, str]) -> str:
    lines = "".join(f"{name}\0{digest}\n" for name, digest in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()
