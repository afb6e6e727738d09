"""Keeps what was measured on a machine below `.tuning` in the repository, by what it depends on.

Remove that folder to measure again; without write access to it every start measures.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec
import structlog

from saccade.models.contract.manifest import Manifest

log = structlog.get_logger()

LARGEST_FILE_BYTES = 512 * 1024 * 1024  # all that is compared is loaded at once
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


def keep(place: Path, content: bytes) -> None:
    partial = place.with_suffix(f".{os.getpid()}")
    try:
        place.parent.mkdir(exist_ok=True)
        partial.write_bytes(content)
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
