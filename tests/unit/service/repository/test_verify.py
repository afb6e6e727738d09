"""A version is served only when every byte is the one that was gated."""

from __future__ import annotations

import hashlib
from pathlib import Path

import orjson
import pytest
from pydantic import ValidationError

from saccade.models.contract.manifest import Manifest
from saccade.service.errors import RepositoryError
from saccade.service.repository.verify import ensure_judged, verified_bytes, verify_version
from tests.support.versions import manifest_for, publish


@pytest.fixture
def version_dir(tmp_path: Path) -> Path:
    return publish(tmp_path, manifest_for("digits", 1))


def test_untouched_version_is_verified(version_dir: Path) -> None:
    verified = verify_version(version_dir)

    assert verified.manifest == manifest_for("digits", 1)
    assert verified.manifest_sha256 == hashlib.sha256((version_dir / "manifest.json").read_bytes()).hexdigest()


def test_tampered_file_is_refused_by_name(version_dir: Path) -> None:
    (version_dir / "model.onnx").write_bytes(b"weightz")

    with pytest.raises(RepositoryError, match=r"model\.onnx has SHA-256 .* the file changed after its gate"):
        verify_version(version_dir)


def test_missing_file_is_refused_by_name(version_dir: Path) -> None:
    (version_dir / "model.onnx").unlink()

    with pytest.raises(RepositoryError, match=r"cannot read model\.onnx: No such file"):
        verify_version(version_dir)


def test_directory_in_place_of_a_file_is_refused(version_dir: Path) -> None:
    (version_dir / "model.onnx").unlink()
    (version_dir / "model.onnx").mkdir()

    with pytest.raises(RepositoryError, match=r"cannot read model\.onnx"):
        verify_version(version_dir)


@pytest.mark.parametrize("name", ["2", "other/1"])
def test_renamed_directory_is_refused(version_dir: Path, tmp_path: Path, name: str) -> None:
    moved = tmp_path / "digits" / "2" if name == "2" else tmp_path / "other" / "1"
    moved.parent.mkdir(exist_ok=True)
    version_dir.rename(moved)

    with pytest.raises(RepositoryError, match="holds the manifest of digits/1"):
        verify_version(moved)


def test_newer_schema_is_refused_with_what_to_do(version_dir: Path) -> None:
    path = version_dir / "manifest.json"
    path.write_bytes(orjson.dumps({"schema_version": 2, "from_the_future": True}))

    with pytest.raises(RepositoryError, match="schema_version 2, this saccade reads up to 1; upgrade the server"):
        verify_version(version_dir)


def test_version_without_an_accepted_variant_is_refused(tmp_path: Path) -> None:
    version_dir = publish(tmp_path, manifest_for("digits", 1, accepted=False))

    with pytest.raises(RepositoryError, match="no variant passed its gate"):
        verify_version(version_dir)


def test_unjudged_version_is_refused_unless_the_server_allows_it() -> None:
    judged, unjudged = manifest_for("digits", 1), manifest_for("digits", 2, judged=False)

    ensure_judged(judged, allow_unjudged=False)
    ensure_judged(unjudged, allow_unjudged=True)
    with pytest.raises(RepositoryError, match="set SACCADE_ALLOW_UNJUDGED=true"):
        ensure_judged(unjudged, allow_unjudged=False)


@pytest.mark.parametrize("judged", [True, False])
def test_manifest_and_gates_agree_on_whether_the_version_was_judged(judged: bool) -> None:
    document = manifest_for("digits", 1, judged=judged).model_dump(mode="json")

    with pytest.raises(ValidationError, match="the gate of variant 'fp32' says otherwise"):
        Manifest.model_validate(document | {"judged": not judged})


def test_missing_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match=r"cannot read .*manifest\.json"):
        verify_version(tmp_path)


def test_verified_bytes_checks_the_digest_only_when_given(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"weights")

    assert verified_bytes(file, None) == b"weights"
    assert verified_bytes(file, hashlib.sha256(b"weights").hexdigest()) == b"weights"
    with pytest.raises(RepositoryError, match="SHA-256"):
        verified_bytes(file, "0" * 64)
    with pytest.raises(RepositoryError, match="cannot read"):
        verified_bytes(tmp_path / "absent", None)
