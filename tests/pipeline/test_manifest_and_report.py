"""Manifest and report are one whole. Promises: a change in one of them is refused by name, whatever the hashes say."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import orjson
import pytest

from saccade.service.cli.verification import verification_of
from saccade.service.errors import BadSignature, RepositoryError, UnsignedVersion
from saccade.service.repository.open import list_versions
from saccade.service.repository.signature import SIGNATURE_NAME
from saccade.service.repository.trusted_keys import NO_SIGNATURES, SignaturePolicy
from saccade.service.repository.verify import verify_version
from tests.pipeline.published_tiny import Published
from tests.pipeline.test_tampering import move_one_weight
from tests.support.signing import TRUSTED, signed

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
        (lambda each: each["extras"][0].update(method="another"), "the extra outputs of variant 'fp32'"),
        (lambda each: each.pop("extras"), "the extra outputs of variant 'fp32'"),
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


@pytest.mark.parametrize("forged", [{"pictures": 9}, None])
def test_quality_changed_in_the_manifest_alone_is_refused(forged: Document | None, version_dir: Path) -> None:
    change(version_dir / "manifest.json", lambda each: each.update(quality=forged and each["quality"] | forged))

    with pytest.raises(RepositoryError, match="quality of the manifest"):
        verify_version(version_dir)


def test_reports_of_before_quality_and_extra_outputs_are_taken(version_dir: Path) -> None:
    def edit(report: Document) -> None:
        report.pop("quality")
        for variant in report["variants"]:
            variant["qualify"].pop("extras")

    change(version_dir / "report.json", edit)
    rehash(version_dir)

    assert verify_version(version_dir).manifest.quality is not None


def test_another_precision_under_the_same_name_is_refused_although_everything_was_hashed_again(
    version_dir: Path,
) -> None:
    shutil.copyfile(version_dir / "fp32.onnx", version_dir / "int8-trt.onnx")
    rehash(version_dir)

    with pytest.raises(RepositoryError, match="the file of variant 'int8-trt'"):
        verify_version(version_dir)


def forge_gate(version_dir: Path, name: str, edit: Callable[[Document], object]) -> None:
    """The forger edits one check, or removes it, in manifest and report alike, and hashes everything."""

    def forge(variants: list[Document]) -> None:
        for variant in variants:
            for check in list(variant["gate"]["checks"]):
                if check["name"] == name and edit(check) is False:
                    variant["gate"]["checks"].remove(check)

    change(version_dir / "report.json", lambda report: forge(report["variants"]))
    change(version_dir / "manifest.json", lambda manifest: forge(manifest["variants"]))
    rehash(version_dir)


@pytest.mark.parametrize(
    ("name", "edit", "words"),
    [
        ("parity", lambda check: check.update(limit=9.0), "variant 'fp32': check parity has the limit 9.0"),
        ("batch_invariance", lambda check: check.update(limit=None), "check batch_invariance has the limit None"),
        ("hostile_inputs", lambda check: False, "'fp32': the gate has no check hostile_inputs, which mode parity"),
        ("agreement", lambda check: False, "the gate has no check agreement"),
    ],
)
def test_a_gate_that_is_not_the_one_of_the_thresholds_is_named_although_everything_was_hashed_again(
    name: str, edit: Callable[[Document], object], words: str, version_dir: Path
) -> None:
    forge_gate(version_dir, name, edit)

    with pytest.raises(RepositoryError, match=words):
        verify_version(version_dir)


def test_a_mode_that_the_manifest_does_not_tell_is_named(version_dir: Path) -> None:
    change(version_dir / "report.json", lambda report: report["thresholds"].update(mode="metric"))
    rehash(version_dir)

    with pytest.raises(RepositoryError, match=r"judged: False, the gate of report\.json had mode metric"):
        verify_version(version_dir)


def test_label_lines_of_another_order_are_named_although_everything_was_hashed_again(version_dir: Path) -> None:
    lines = (version_dir / "labels.txt").read_text().splitlines()
    (version_dir / "labels.txt").write_text("".join(f"{line}\n" for line in reversed(lines)))
    rehash(version_dir)

    with pytest.raises(RepositoryError, match=r"lines of labels\.txt are not the manifest's labels"):
        verify_version(version_dir)


def test_another_normalisation_than_the_reports_is_named(version_dir: Path) -> None:
    change(version_dir / "manifest.json", lambda manifest: manifest["normalisation"].update(mean=[0.5, 0.5, 0.5]))

    with pytest.raises(RepositoryError, match="normalisation of the manifest"):
        verify_version(version_dir)


@pytest.mark.parametrize("section", ["preprocess", "normalisation", "reference"])
def test_what_an_older_report_does_not_tell_has_its_default(version_dir: Path, section: str) -> None:
    """Fields come with new versions of the exporter, and what was published before them stays published."""
    report = orjson.loads((version_dir / "report.json").read_bytes())
    defaults = [name for name, value in report[section].items() if value in (None, False, 0, "")]
    for document in ("report.json", "manifest.json"):
        change(version_dir / document, lambda told: [told.get(section, {}).pop(name, None) for name in defaults])
    rehash(version_dir)
    (version_dir / SIGNATURE_NAME).unlink(missing_ok=True)

    verify_version(version_dir)
    assert section != "preprocess" or "margin" in defaults


def test_an_older_report_without_thresholds_stays_valid(version_dir: Path) -> None:
    change(version_dir / "report.json", lambda report: [report.pop(name) for name in ("thresholds", "normalisation")])
    change(version_dir / "manifest.json", lambda manifest: manifest.update(judged=False))
    rehash(version_dir)

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


def pass_fp32_off_as_int8(version_dir: Path, edit: Callable[[Document], object] = lambda qualify: None) -> None:
    """The forger puts fp32 bytes under the int8 name, edits what the report says of them, and hashes everything."""
    content = (version_dir / "fp32.onnx").read_bytes()
    (version_dir / "int8-trt.onnx").write_bytes(content)

    def forge(report: Document) -> None:
        (found,) = (each for each in report["variants"] if each["qualify"]["variant"] == "int8-trt")
        found["qualify"] |= {"file_sha256": hashlib.sha256(content).hexdigest(), "file_bytes": len(content)}
        edit(found)
        manifest = orjson.loads((version_dir / "manifest.json").read_bytes())
        (variant,) = (each for each in manifest["variants"] if each["name"] == "int8-trt")
        variant["gate"] = found["gate"]
        (version_dir / "manifest.json").write_bytes(orjson.dumps(manifest))

    change(version_dir / "report.json", forge)
    rehash(version_dir)


def say_fp32_by_layer(found: Document) -> None:
    for layer in found["qualify"]["layers"]:
        layer["precision"] = "fp32"


def say_nothing_of_layers(found: Document) -> None:
    found["qualify"]["layers"] = []
    found["gate"]["checks"] = [each for each in found["gate"]["checks"] if each["name"] != "effective_precision"]


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda found: None, r"int8-trt\.onnx multiplies layer .* in fp32, report\.json says int8"),
        (say_fp32_by_layer, r"check effective_precision of variant 'int8-trt' says .*, the layers in report\.json 0"),
        (say_nothing_of_layers, r"no layer of int8-trt\.onnx multiplies in int8, the precision of variant 'int8-trt'"),
    ],
)
def test_fp32_under_the_name_of_int8_is_named_although_file_report_and_manifest_were_hashed_again(
    edit: Callable[[Document], object], words: str, version_dir: Path
) -> None:
    pass_fp32_off_as_int8(version_dir, edit)

    with pytest.raises(RepositoryError, match=words):
        verify_version(version_dir)
    (told,) = (verification_of(found, NO_SIGNATURES) for found in list_versions(version_dir.parent.parent))
    assert re.search(words, told.reason)


def test_a_signed_version_that_was_forged_is_refused_before_anything_is_read(version_dir: Path) -> None:
    signed(version_dir)
    pass_fp32_off_as_int8(version_dir)

    with pytest.raises(BadSignature, match=r"manifest\.json has SHA-256"):
        verify_version(version_dir, SignaturePolicy(TRUSTED, is_required=True))


def test_a_forged_version_without_its_signature_is_refused_where_signatures_are_required(version_dir: Path) -> None:
    pass_fp32_off_as_int8(version_dir)

    (version_dir / SIGNATURE_NAME).unlink(missing_ok=True)

    with pytest.raises(UnsignedVersion, match="is not signed"):
        verify_version(version_dir, SignaturePolicy(TRUSTED, is_required=True))


def test_a_graph_that_cannot_be_read_is_refused(version_dir: Path) -> None:
    content = (version_dir / "fp32.onnx").read_bytes()[:-9]
    (version_dir / "fp32.onnx").write_bytes(content)
    change(
        version_dir / "report.json",
        lambda report: report["variants"][0]["qualify"].update(file_sha256=hashlib.sha256(content).hexdigest()),
    )
    rehash(version_dir)

    with pytest.raises(RepositoryError, match=r"cannot read fp32\.onnx \(it ends within a field\)"):
        verify_version(version_dir)


def test_a_weight_off_the_pattern_is_named_by_verify_although_everything_was_hashed_again(version_dir: Path) -> None:
    file = version_dir / "int8-trt-sparse24.onnx"
    (before,) = (verification_of(found, NO_SIGNATURES) for found in list_versions(version_dir.parent.parent))
    model = onnx.load(file)
    move_one_weight(model)
    onnx.save(model, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()

    def edit(report: Document) -> None:
        for each in report["variants"]:
            if each["qualify"]["variant"] == "int8-trt-sparse24":
                each["qualify"]["file_sha256"] = digest

    change(version_dir / "report.json", edit)
    rehash(version_dir)

    (told,) = (verification_of(found, NO_SIGNATURES) for found in list_versions(version_dir.parent.parent))

    assert before.reason == ""
    assert re.search(r"int8-trt-sparse24\.onnx is not 2:4: .*: 1 of \d+ groups of four input channels", told.reason)
