"""Keeps what was measured on a machine below `.tuning` in the repository, by what it depends on.

Remove that folder to measure again; without write access to it every start measures.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog

from saccade.models.contract.manifest import Manifest
from saccade.models.contract.plain_files import read_plain

log = structlog.get_logger()

KeptT = TypeVar("KeptT")

LARGEST_FILE_BYTES = 512 * 1024 * 1024  # all that is compared is loaded at once
_MOST_BYTES = 1 << 20  # far more than any result has
_CPU_INFO = Path("/proc/cpuinfo")


def place_of(repository: Path, *parts: object) -> Path:
    """The file for a measurement that depends on these parts, the processor and the runtimes."""
    identity = hashlib.sha256(msgspec.json.encode([*parts, _processor(), _runtimes()])).hexdigest()
    return repository / ".tuning" / f"{identity[:32]}.json"


def files_of(manifest: Manifest, variants: Iterable[str]) -> list[str]:
    """Digests of the files of these variants."""
    named = [variant for name in variants if (variant := manifest.variant(name)) is not None]
    paths = {file for variant in named for file in (variant.file, *variant.external_data)}
    return sorted(entry.sha256 for entry in manifest.files if entry.path in paths)


def known(place: Path, read: Callable[[bytes], KeptT]) -> KeptT | None:
    """What an earlier start kept here; None, so that it is measured again, where that is nothing or `read` raises."""
    try:
        return read(read_plain(place, _MOST_BYTES))
    except FileNotFoundError:
        return None
    except Exception as error:  # whoever can write to the repository must not keep a server from starting
        log.info("tuning_not_known", place=str(place), reason=last_line(str(error) or type(error).__name__))
        return None


def keep(place: Path, content: bytes) -> None:
    """Replaces the file as a whole; servers that share the repository may do so at the same time."""
    partial = place.with_suffix(f".{secrets.token_hex(8)}")
    try:
        place.parent.mkdir(exist_ok=True)
        with partial.open("xb") as file:
            file.write(content)
        partial.replace(place)
    except OSError as error:
        log.info("tuning_not_kept", place=str(place), reason=error.strerror)


def last_line(text: str) -> str:
    """The last line of an error, which in a child's trace says what happened."""
    return (text.strip().splitlines() or ["no message"])[-1]


def _processor() -> str:
    """Returns the processor's model and features, as the kernel reports them."""
    try:
        lines = _CPU_INFO.read_text("utf-8").splitlines()
    except OSError:
        return ""
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))


def _runtimes() -> str:
    found = []
    for name in ("onnxruntime", "onnxruntime-gpu", "openvino"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(importlib.metadata.version(name))
    return " ".join(found)
