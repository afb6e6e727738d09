"""The manifest: same bytes for the same content, and a refusal that says what is wrong for everything else."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from saccade.models.contract.manifest import (
    GateCheck,
    GateDecision,
    Manifest,
    ManifestError,
    manifest_bytes,
    manifest_from_bytes,
    read_manifest,
)
from saccade.models.contract.specs import Task
from tests.support.versions import manifest_for, publish

FULL = manifest_for("digits", 1, Task.DETECT)


def changed(**fields: Any) -> bytes:
    return orjson.dumps({**orjson.loads(manifest_bytes(FULL)), **fields})


@pytest.mark.parametrize("task", list(Task))
def test_manifest_survives_a_round_trip(task: Task) -> None:
    manifest = manifest_for("digits", 3, task)

    assert manifest_from_bytes(manifest_bytes(manifest)) == manifest


def test_equal_manifests_have_equal_bytes() -> None:
    reordered = orjson.dumps(dict(reversed(orjson.loads(manifest_bytes(FULL)).items())))

    assert manifest_bytes(manifest_from_bytes(reordered)) == manifest_bytes(FULL)


def test_read_manifest_gives_the_digest_of_the_file(tmp_path: Path) -> None:
    version_dir = publish(tmp_path, FULL)

    manifest, sha256 = read_manifest(version_dir)

    assert manifest == FULL
    assert sha256 == hashlib.sha256((version_dir / "manifest.json").read_bytes()).hexdigest()


def test_missing_file_is_refused_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"cannot read .*manifest\.json: No such file"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"[]", "no integer schema_version"),
        (b"{}", "no integer schema_version"),
        (b'{"schema_version": "1"}', "no integer schema_version"),
        (b'{"schema_version": 2}', "reads up to 1; upgrade the server"),
        (b'{"schema_version": 0}', "schema_version"),
        (b'{"schema_version": 1}', "model: Field required"),
    ],
)
def test_damaged_or_foreign_manifest_is_refused(raw: bytes, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        manifest_from_bytes(raw)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"colour": "red"}, "colour: Extra inputs are not permitted"),
        ({"model": "../etc"}, "model: String should match"),
        ({"model": "Digits"}, "model: String should match"),
        ({"version": 0}, "version: "),
        ({"weights": "sha256:12"}, "weights: "),
        ({"files": []}, r"names 'model.onnx', which `files` does not list"),
        ({"allowed_batch_sizes": []}, "must ascend from 1"),
        ({"allowed_batch_sizes": [2, 4]}, "must ascend from 1"),
        ({"allowed_batch_sizes": [1, 4, 2]}, "must ascend from 1"),
        ({"allowed_batch_sizes": [1, 2, 2]}, "must ascend from 1"),
        ({"batchable": False}, "allows batch size 1 only"),
    ],
)
def test_inconsistent_manifest_is_refused_naming_the_field(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        manifest_from_bytes(changed(**fields))


@pytest.mark.parametrize("path", ["/etc/passwd", "../model.onnx", "a/../../b", "a\\b", "", "."])
def test_file_outside_the_version_directory_is_refused(path: str) -> None:
    entry = {"path": path, "size_bytes": 1, "sha256": "0" * 64}

    with pytest.raises(ManifestError, match="must stay inside the version directory"):
        manifest_from_bytes(changed(files=[entry]))


def test_answer_is_what_the_server_reads_and_the_rest_is_for_others() -> None:
    features = {"name": "features", "dtype": "float32", "shape": [8]}
    outputs = [*orjson.loads(manifest_bytes(FULL))["outputs"], features]

    manifest = manifest_from_bytes(changed(outputs=outputs))

    assert manifest.answer == FULL.outputs
    assert manifest.outputs[-1].name == "features"


def test_external_weights_must_be_listed() -> None:
    variant = orjson.loads(manifest_bytes(FULL))["variants"][0] | {"external_data": ["weights.bin"]}

    with pytest.raises(ManifestError, match=r"names 'weights.bin', which `files` does not list"):
        manifest_from_bytes(changed(variants=[variant]))


def test_repeated_variant_names_are_refused() -> None:
    variant = orjson.loads(manifest_bytes(FULL))["variants"][0]

    with pytest.raises(ManifestError, match="variant names repeat"):
        manifest_from_bytes(changed(variants=[variant, variant]))


@pytest.mark.parametrize(("accepted", "passed"), [(True, False), (False, True)])
def test_gate_decision_must_follow_its_checks(accepted: bool, passed: bool) -> None:
    check = GateCheck(name="parity", passed=passed, value=0.0, limit=0.1, detail="")

    with pytest.raises(ValidationError, match="exactly when every check passed"):
        GateDecision(accepted=accepted, checks=(check,))


def test_unmeasured_figure_cannot_hide_as_not_a_number() -> None:
    with pytest.raises(ValidationError, match="finite number"):
        GateCheck(name="parity", passed=True, value=float("nan"), limit=None, detail="")


def test_variants_are_found_by_name_and_by_gate() -> None:
    denied = manifest_for("digits", 1, accepted=False)

    assert FULL.variant("fp32") == FULL.variants[0]
    assert FULL.variant("int8") is None
    assert list(FULL.accepted_variants()) == list(FULL.variants)
    assert list(denied.accepted_variants()) == []


def test_every_field_of_the_contract_is_written_down() -> None:
    assert set(orjson.loads(manifest_bytes(FULL))) == set(Manifest.model_fields)
