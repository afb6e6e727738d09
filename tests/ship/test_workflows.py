"""CI calls what exists, may read and no more, and runs actions of a version."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / ".github/workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
STAGES = set(re.findall(r"^FROM \S+ AS (\S+)", (ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE))


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def workflow(request: pytest.FixtureRequest) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(request.param.read_text("utf-8"))
    return content


def steps(workflow: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for job in workflow["jobs"].values():
        yield from job["steps"]


def test_the_four_are_there() -> None:
    assert [path.stem for path in FILES] == ["check", "images", "release", "test"]


def test_make_targets_exist(workflow: dict[str, Any]) -> None:
    called = {name for step in steps(workflow) for name in re.findall(r"\bmake ([\w-]+)", step.get("run", ""))}

    assert called <= TARGETS


def test_images_are_stages(workflow: dict[str, Any]) -> None:
    built = [step["with"]["target"] for step in steps(workflow) if "target" in step.get("with", {})]
    rows = [
        row for job in workflow["jobs"].values() for row in job.get("strategy", {}).get("matrix", {}).get("include", [])
    ]

    assert {name for name in built if not name.startswith("${{")} <= STAGES
    assert {row["target"] for row in rows if "target" in row} <= STAGES


def test_nothing_may_write_unless_its_job_says_so(workflow: dict[str, Any]) -> None:
    assert workflow["permissions"] == {"contents": "read"}
    writing = {name for name, job in workflow["jobs"].items() if "write" in job.get("permissions", {}).values()}
    assert not writing or "tags" in workflow[True]["push"], "only a release writes"  # YAML reads `on` as true


def test_jobs_end_and_actions_have_a_version(workflow: dict[str, Any]) -> None:
    assert all("timeout-minutes" in job for job in workflow["jobs"].values())
    assert all(re.search(r"@(v\d|release/v\d)", step["uses"]) for step in steps(workflow) if "uses" in step)
    checkouts = [step for step in steps(workflow) if step.get("uses", "").startswith("actions/checkout")]
    assert all(step["with"] == {"persist-credentials": False} for step in checkouts)


def test_what_a_person_sets_is_never_pasted_into_a_shell(workflow: dict[str, Any]) -> None:
    assert not [step["run"] for step in steps(workflow) if "${{" in step.get("run", "")]
