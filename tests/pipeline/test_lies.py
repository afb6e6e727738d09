"""Lies. Promises: whatever is untrue about a network or its data ends denied, in one sentence, and is not published.

The networks are right about pictures of plain colours; each lie changes one thing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from safetensors.torch import save_file

from saccade.export.cli.program import app
from saccade.export.reports.export_report import ExportReport, read_report
from saccade.export.reports.report_files import markdown
from saccade.models.contract.manifest import read_manifest
from tests.pipeline.plain_pictures import COLOURS, SQUARES, write_colours, write_masks, write_squares
from tests.pipeline.tiny import honest_networks
from tests.pipeline.tiny.tiny_networks import TinyClassifier

Document = dict[str, Any]
_CLASSIFY: Document = {
    "task": {"task": "classify", "top_k": 3},
    "labels": list(COLOURS),
    "preprocess": {"width": 32, "height": 32, "fit": "stretch"},
}
_DETECT: Document = {
    "task": {"task": "detect", "max_detections": 20},
    "labels": list(SQUARES),
    "preprocess": {"width": 32, "height": 32, "fit": "letterbox"},
}
_SEGMENT: Document = {
    "task": {"task": "segment", "background_id": 0},
    "labels": ["background", "bright"],
    "preprocess": {"width": 32, "height": 32, "fit": "letterbox"},
}
_QUICK: Document = {
    "model": "lie",
    "data": {"path": "data", "limits": {"max_near": 1.0}},  # squares on grey look alike
    "variants": ["fp32"],
    "allowed_batch_sizes": [1, 2],
    "qualify": {
        "latency_repeats": 3,
        "latency_budget_s": 0.02,
        "compare_batch_sizes": [1],
        "compare_repeats": 3,
        "compare_budget_s": 0.02,
        "threads": 1,
        "allow_spinning": False,
    },
}


class Told:
    """What came of a recipe."""

    def __init__(self, root: Path, report: ExportReport, exit_code: int, output: str) -> None:
        self.exit_code = exit_code
        self.output = output
        self.is_published = (root / "repository" / "lie" / "1").exists()
        self.report = report
        (self.variant,) = report.variants
        self.failed = {check.name: check.detail for check in self.variant.gate.checks if not check.passed}


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Told]:
    """Exports a network with its own weights in a file; the data lies in tmp_path / "data"."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "tiny"))

    def run(network: str, sections: Document, gate: Document | None = None) -> Told:
        return judged(program(with_weights(network), sections, gate))

    def export(factory: str, sections: Document, gate: Document | None) -> Told:
        return judged(program(factory, sections, gate))

    def refused(network: str, sections: Document) -> Result:
        """Returns what the program says of data that does not reach the gate."""
        result = program(with_weights(network), sections, None)
        assert reports() == []
        return result

    def with_weights(network: str) -> str:
        module = getattr(honest_networks, network)()
        save_file(module.state_dict(), tmp_path / "weights.safetensors")
        return f"honest_networks:{network}"

    def reports() -> list[Path]:
        return list((tmp_path / "work" / "lie").glob("gate-*/report.json"))

    def judged(result: Result) -> Told:
        assert len(reports()) == 1, result.output
        return Told(tmp_path, read_report(reports()[0]), result.exit_code, result.output)

    def program(factory: str, sections: Document, gate: Document | None) -> Result:
        recipe = tmp_path / "recipe.yaml"
        source = {"source": {"kind": "module", "factory": factory}, "weights": "weights.safetensors"}
        recipe.write_text(yaml.safe_dump(_QUICK | sections | source | {"gate": gate or {}}))
        places = ["--repository", str(tmp_path / "repository"), "--work", str(tmp_path / "work")]
        return CliRunner().invoke(app, ["run", str(recipe), *places])

    run.refused = refused  # type: ignore[attr-defined]
    run.export = export  # type: ignore[attr-defined]  # for networks of another file
    return run


def test_honest_networks_pass(told: Callable[..., Told], tmp_path: Path) -> None:
    write_colours(tmp_path / "data", 120)

    found = told("ColourClassifier", _CLASSIFY)

    assert found.failed == {}
    assert found.is_published


def test_honest_detector_passes_with_its_operating_point(told: Callable[..., Told], tmp_path: Path) -> None:
    write_squares(tmp_path / "data", 60)

    found = told("SquareDetector", _DETECT)

    assert found.failed == {}
    assert "data.limits.max_near 1 (default 0.05)" in found.report.looser_data_limits
    manifest, _ = read_manifest(tmp_path / "repository" / "lie" / "1")
    point = manifest.variants[0].operating_point
    assert manifest.judged
    assert point is not None
    assert (point.score_threshold, point.precision, point.recall) == (0.25, 1.0, 1.0)


def test_honest_segmenter_passes(told: Callable[..., Told], tmp_path: Path) -> None:
    write_masks(tmp_path / "data", 60)

    found = told("BrightSegmenter", _SEGMENT)

    assert found.failed == {}
    assert found.is_published


def test_random_weights_in_a_file_are_no_better_than_guessing(told: Callable[..., Told], tmp_path: Path) -> None:
    torch.manual_seed(3)
    save_file(TinyClassifier().state_dict(), tmp_path / "weights.safetensors")
    digits = {"dataset": "digit_scenes", "images": {"calibration": 32, "tuning": 16, "test": 200}}
    sections = _CLASSIFY | {"labels": [str(digit) for digit in range(10)], "data": digits}

    found = told.export("tiny_networks:TinyClassifier", sections, None)  # type: ignore[attr-defined]  # see the fixture

    _ensure_denied(found, "better_than_guessing", "no better than guessing")


def test_shuffled_labels_are_no_better_than_guessing(told: Callable[..., Told], tmp_path: Path) -> None:
    write_colours(tmp_path / "data", 120, is_shuffled=True)

    _ensure_denied(told("ColourClassifier", _CLASSIFY), "better_than_guessing", "no better than guessing")


def test_a_handful_of_test_images_is_too_few(told: Callable[..., Told], tmp_path: Path) -> None:
    write_colours(tmp_path / "data", 5)

    _ensure_denied(told("ColourClassifier", _CLASSIFY, {"min_metric": 0.5}), "test_images", "5 test images")


def test_one_test_image_is_refused_before_anything_is_converted(told: Any, tmp_path: Path) -> None:
    write_colours(tmp_path / "data", 1)

    _ensure_refused(told.refused("ColourClassifier", _CLASSIFY), "split 'test' (test) shows only 'red'", tmp_path)


@pytest.mark.parametrize(
    ("network", "sentence"),
    [("SoftmaxTwice", "scores: probabilities"), ("BlindClassifier", "every picture gets the same class and score")],
)
def test_classifiers_of_another_form_are_told_what_to_write(
    network: str, sentence: str, told: Callable[..., Told], tmp_path: Path
) -> None:
    write_colours(tmp_path / "data", 120)

    _ensure_denied(told(network, _CLASSIFY), "plausible_answers", sentence)


def test_not_a_number_on_one_picture_is_found(told: Callable[..., Told], tmp_path: Path) -> None:
    write_colours(tmp_path / "data", 120, has_pure_green=True)

    found = told("NotANumberOnPureGreen", _CLASSIFY)

    assert "hostile_inputs" not in found.failed, "no drawn input shows it"
    _ensure_denied(found, "plausible_answers", "1 of 121 pictures are not finite")


@pytest.mark.parametrize(
    ("network", "check", "sentence"),
    [
        ("CentreAndSize", "plausible_answers", "boxes: cxcywh"),
        ("RelativeBoxes", "plausible_answers", "units: relative"),
        ("Unsuppressed", "plausible_answers", "suppression is missing"),
        ("NextCell", "better_than_guessing", "map 0.0000"),
    ],
)
def test_detectors_of_another_form_or_without_a_hit_are_denied(
    network: str, check: str, sentence: str, told: Callable[..., Told], tmp_path: Path
) -> None:
    write_squares(tmp_path / "data", 60)

    _ensure_denied(told(network, _DETECT), check, sentence)


def test_masks_without_foreground_are_refused_since_finding_nothing_would_be_perfect(told: Any, tmp_path: Path) -> None:
    write_masks(tmp_path / "data", 60, has_foreground=False)

    sentence = "shows only 'background', so a network that finds nothing would be perfect"
    _ensure_refused(told.refused("BrightSegmenter", _SEGMENT), sentence, tmp_path)


def test_a_camera_that_no_training_picture_came_from_is_caught(told: Callable[..., Told], tmp_path: Path) -> None:
    write_colours(tmp_path / "data", 240, camera_cast=150)
    sections = _CLASSIFY | {"data": {"path": "data", "slices": "tags.csv", "limits": {"max_near": 1.0}}}

    found = told("ColourClassifier", sections, {"min_slice_metric": 0.8})

    _ensure_denied(found, "slice_floor", "top1 of slice 'camera=new' (120 images) is 0.")
    assert set(found.failed) == {"slice_floor"}
    assert [each.name for each in found.variant.qualify.slices] == ["camera=new", "camera=old"]
    assert "| **camera=new** | 120 |" in markdown(found.report)


def test_two_cameras_alike_pass_with_their_figures(told: Callable[..., Told], tmp_path: Path) -> None:
    write_colours(tmp_path / "data", 240)
    sections = _CLASSIFY | {"data": {"path": "data", "slices": "tags.csv", "limits": {"max_near": 1.0}}}

    found = told("ColourClassifier", sections, {"min_slice_metric": 0.8})

    assert found.failed == {}
    manifest, _ = read_manifest(tmp_path / "repository" / "lie" / "1")
    assert {"slice_drop", "slice_floor"} <= {check.name for check in manifest.variants[0].gate.checks}


def test_corrupted_pictures_are_judged_where_the_recipe_asks(told: Callable[..., Told], tmp_path: Path) -> None:
    pytest.importorskip("imagecorruptions", reason="the extra `corruptions` is not installed")
    write_colours(tmp_path / "data", 120)

    found = told("ColourClassifier", _CLASSIFY, {"corruptions": {"pictures": 30, "max_clean_drop": 0.01}})

    figures = found.variant.qualify.corruptions
    assert figures is not None
    assert (figures.images, len(figures.kinds), figures.clean) == (30, 15, 1.0)
    assert figures.eager_drop.judged <= 0.0, "the file answers as the network does"
    assert found.failed == {}, "the mean colour of a picture stands all of them"
    manifest, _ = read_manifest(tmp_path / "repository" / "lie" / "1")
    names = {check.name for check in manifest.variants[0].gate.checks}
    assert {"corruption_drop", "corruption_worst", "corruption_clean"} <= names
    assert manifest.quality is not None
    assert (manifest.quality.pictures, manifest.quality.size.usual) == (12, 32.0)
    assert "gate.corruptions.pictures 30 (default 200)" in found.report.looser_data_limits
    assert "corrupted in 15 ways at strengths 1, 3, 5 of 5" in markdown(found.report)


def test_without_labels_a_version_is_published_as_unjudged(told: Callable[..., Told], tmp_path: Path) -> None:
    write_colours(tmp_path / "data", 30, is_shuffled=True)

    found = told("ColourClassifier", _CLASSIFY, {"mode": "parity"})

    assert found.failed == {}
    manifest, _ = read_manifest(tmp_path / "repository" / "lie" / "1")
    assert not manifest.judged
    assert "unjudged" in {check.name for check in manifest.variants[0].gate.checks}


def _ensure_refused(found: Result, sentence: str, root: Path) -> None:
    assert sentence in " ".join(found.output.split())
    assert found.exit_code == 1
    assert not (root / "repository").exists()


def _ensure_denied(found: Told, check: str, sentence: str) -> None:
    assert sentence in found.failed[check]
    denial, verdict = found.output.splitlines()[-2:]
    assert sentence in denial
    assert verdict == "lie: nothing is published: the gate accepts no variant (fp32 denied)"
    assert found.exit_code == 1
    assert not found.is_published
