"""Manifest and report are one whole. Promises: a change in one of them is refused by name, whatever the hashes say."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from saccade.service.errors import RepositoryError
from saccade.service.repository.verify import verify_version
from tests.pipeline.published_tiny import Published

Document = dict[str, Any]


@pytest.fixture
def version_dir(published: Published, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(published.version_dir, tmp_path / "tiny-classifier" / "1"))


PAIR = {"against": "int8-cpu", "device_kind": "cpu", "ratio": 9.0, "ci_low": 8.0, "ci_high": 9.5} | {
    "confidence": 0.95,
    "rounds": 40,
    "batch_sizes": [1],
}


def change(path: Path, edit: Callable[[Document], object]) -> None:
    document = orjson.loads(path.read_bytes())
    edit(document)
    path.write_bytes(orjson.dumps(document))


def rehash(version_dir: Path) -> None:
    """What a forger does next: the manifest lists the digests of the files as they lie there."""

    def edit(manifest: Document) -> None:
        for entry in manifest["files"]:
            content = (version_dir / entry["path"]).read_bytes()
            entry |= {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}

    change(version_dir / "manifest.json", edit)


def test_untouched_version_agrees(version_dir: Path) -> None:
    assert not verify_version(version_dir).manifest.judged


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda each: each["gate"].update(checks=[]), "at least 1 item"),
        (lambda each: each["gate"]["checks"].pop(), "the gate of variant 'fp32'"),
        (lambda each: each["metric"].update(value=0.99), "the metric of variant 'fp32'"),
        (lambda each: each["latency"][0].update(p50_ms=1e-6), "the latency of variant 'fp32'"),
        (lambda each: each.update(paired_speeds=[PAIR]), "the paired speed of variant 'fp32'"),
        (lambda each: each.update(file="int8-trt.onnx"), "the file of variant 'fp32'"),
        (lambda each: each.update(name="fp16"), "variant 'fp16'"),
    ],
)
def test_what_the_report_does_not_hold_is_refused(
    edit: Callable[[Document], object], words: str, version_dir: Path
) -> None:
    change(version_dir / "manifest.json", lambda manifest: edit(manifest["variants"][0]))

    with pytest.raises(RepositoryError, match=words):
        verify_version(version_dir)


def test_a_check_that_passed_beyond_its_limit_is_refused(version_dir: Path) -> None:
    def edit(manifest: Document) -> None:
        (parity,) = (each for each in manifest["variants"][0]["gate"]["checks"] if each["name"] == "parity")
        parity["value"] = 0.5

    change(version_dir / "manifest.json", edit)

    with pytest.raises(RepositoryError, match="parity cannot have passed"):
        verify_version(version_dir)


def test_labels_changed_in_the_manifest_alone_are_refused(version_dir: Path) -> None:
    change(version_dir / "manifest.json", lambda manifest: manifest["labels"].reverse())

    with pytest.raises(RepositoryError, match="labels of the manifest"):
        verify_version(version_dir)


def test_another_precision_under_the_same_name_is_refused_although_everything_was_hashed_again(
    version_dir: Path,
) -> None:
    shutil.copyfile(version_dir / "fp32.onnx", version_dir / "int8-trt.onnx")
    rehash(version_dir)

    with pytest.raises(RepositoryError, match="the file of variant 'int8-trt'"):
        verify_version(version_dir)


def test_a_gated_version_without_its_report_is_refused(version_dir: Path) -> None:
    def edit(manifest: Document) -> None:
        manifest["files"] = [each for each in manifest["files"] if each["path"] != "report.json"]

    change(version_dir / "manifest.json", edit)

    with pytest.raises(RepositoryError, match="lists no report"):
        verify_version(version_dir)


def test_a_damaged_report_is_refused(version_dir: Path) -> None:
    (version_dir / "report.json").write_bytes(b"{}")
    rehash(version_dir)

    with pytest.raises(RepositoryError, match=r"report\.json is damaged"):
        verify_version(version_dir)


def test_an_unjudged_version_cannot_call_itself_judged(version_dir: Path) -> None:
    change(version_dir / "manifest.json", lambda manifest: manifest.update(judged=True))

    with pytest.raises(RepositoryError, match="judged is True"):
        verify_version(version_dir)
