"""`saccade repository engines` reads every plan's bytes, and names those that are not what was built."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner

from saccade.models.contract.manifest import read_manifest
from saccade.models.contract.plans import PLAN_FILE, PLAN_RECORD, plan_record_bytes
from saccade.service.cli.program import saccade
from saccade.service.errors import PlanRefused
from saccade.service.repository.plans import PlanStore, StoredPlan, engines_root
from tests.support.plan_records import PLAN, key, record
from tests.support.versions import publish_fake

_SECRET = b"s" * 32
_FORGED = b"another program" * 50


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    publish_fake(tmp_path / "repository", "digits", 1)
    return tmp_path / "repository"


def put(repository: Path, secret: bytes | None = None, onnx_sha256: str = "") -> StoredPlan:
    manifest = read_manifest(repository / "digits" / "1")[0]
    made_from = key(onnx_sha256=onnx_sha256 or manifest.files[0].sha256)
    return PlanStore(engines_root(repository), secret).put(record(variant="fp32", key=made_from), PLAN)


def listed(repository: Path, *arguments: str) -> list[dict[str, Any]]:
    result = CliRunner().invoke(
        saccade, ["repository", "engines", "--repository", str(repository), "--json", *arguments]
    )
    assert result.exit_code == 0, result.output
    rows: list[dict[str, Any]] = orjson.loads(result.stdout)
    return rows


def rewrite_plan_and_record(stored: StoredPlan) -> None:
    """What a forger does who knows that a record holds the plan's digest."""
    (stored.directory / PLAN_FILE).write_bytes(_FORGED)
    changes = {"plan_sha256": hashlib.sha256(_FORGED).hexdigest(), "plan_bytes": len(_FORGED)}
    (stored.directory / PLAN_RECORD).write_bytes(plan_record_bytes(stored.record.model_copy(update=changes)))


def test_plan_as_it_was_built_is_not_damaged(repository: Path) -> None:
    put(repository)

    assert [(row["state"], row["reason"]) for row in listed(repository)] == [("open", "")]


def test_plan_whose_bytes_were_rewritten_is_named(repository: Path) -> None:
    stored = put(repository)
    (stored.directory / PLAN_FILE).write_bytes(PLAN[::-1])

    (row,) = listed(repository)

    assert row["state"] == "damaged"
    assert f"the plan in {stored.directory} has SHA-256" in row["reason"]
    assert "it was changed after it was built" in row["reason"]


def test_plan_rewritten_with_its_record_is_named_under_a_secret_and_read_by_nobody(
    repository: Path, tmp_path: Path
) -> None:
    stored = put(repository, _SECRET)
    rewrite_plan_and_record(stored)
    (tmp_path / "secret").write_bytes(_SECRET)

    (row,) = listed(repository, "--engines-key-file", str(tmp_path / "secret"))

    assert row["state"] == "damaged"
    assert f"the record in {stored.directory} does not carry the HMAC of this server's secret" in row["reason"]
    with pytest.raises(PlanRefused, match="does not carry the HMAC"):
        PlanStore(engines_root(repository), _SECRET).find("digits", 1, "fp32", stored.record.key)


def test_plan_of_another_file_than_the_versions_is_named(repository: Path) -> None:
    put(repository, onnx_sha256="b" * 64)

    (row,) = listed(repository)

    assert row["state"] == "damaged"
    assert "is of a file that variant 'fp32' of digits/1 does not have" in row["reason"]
