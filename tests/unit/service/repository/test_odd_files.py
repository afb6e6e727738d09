"""Files that are none: each is refused with its reason, and nothing waits for it or reads it without an end."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from saccade.models.contract.manifest import MANIFEST_NAME, ManifestError, read_manifest
from saccade.service.errors import DamagedSignature, RepositoryError
from saccade.service.repository.serving_document import ServingRefused, read_document
from saccade.service.repository.signature import read_signature
from saccade.service.repository.verify import verified_bytes, verify_version

ODD: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe": (os.mkfifo, "no plain file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "no plain file"),
    "loop": (lambda path: path.symlink_to(path.name), "Too many levels of symbolic links"),
    "directory": (lambda path: path.mkdir(), "directory"),
}


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_manifest_is_refused(tmp_path: Path, kind: str) -> None:
    make, reason = ODD[kind]
    make(tmp_path / MANIFEST_NAME)

    with pytest.raises(RepositoryError, match=f"(?i){reason}"):
        verify_version(tmp_path)
    with pytest.raises(ManifestError, match=f"(?i){reason}"):
        read_manifest(tmp_path)


def test_a_manifest_of_100_mb_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / MANIFEST_NAME).open("wb") as file:
        file.truncate(100_000_000)

    with pytest.raises(RepositoryError, match="more than 8,388,608 bytes"):
        verify_version(tmp_path)


@pytest.mark.parametrize("kind", ODD)
def test_odd_files_beside_a_manifest_are_refused(tmp_path: Path, kind: str) -> None:
    make, reason = ODD[kind]
    for name in ("model.onnx", "serving.json", "manifest.sig"):
        make(tmp_path / name)

    with pytest.raises(RepositoryError, match=f"(?i){reason}"):
        verified_bytes(tmp_path / "model.onnx", None)
    with pytest.raises(ServingRefused, match=f"(?i){reason}"):
        read_document(tmp_path / "serving.json")
    with pytest.raises(DamagedSignature, match=f"(?i){reason}"):
        read_signature(tmp_path)
