"""Lines of a run. Promises: one line per step, `again:` for what failed alone, no control codes without a terminal."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from saccade.export.artifact import StepResult
from saccade.export.cli.exports import verdict_lines
from saccade.export.cli.progress import facts_in_words, progress_listener
from saccade.export.pipeline import RunSettings
from saccade.export.qualification.qualify_report import SliceFigure
from saccade.export.recipe import LoadedRecipe, load_recipe
from saccade.export.reports.export_report import VariantReport
from saccade.export.reports.report_files import markdown
from tests.support.reports import LABELS, check, decision, qualified, whole_report

DONE = StepResult("wrap", "done", None, 1.25, {"parameters": 25_557_032, "folds": 3, "ops": "Conv 53, " * 20})
FAILED = StepResult("calibrate", "failed", None, 0.5, {"error": "too few pictures " * 10})
PUBLISHED = {
    "version": 3,
    "is_new": True,
    "path": "repository/owls/3",
    "variants": "fp32",
    "pending": "",
    "signed_by": "unsigned",
}
SIGNED = PUBLISHED | {"is_new": False, "pending": "fp16", "signed_by": "0123456789abcdef"}


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedRecipe:
    recipe = tmp_path / "owls.yaml"
    recipe.write_text("source: timm/mobilenetv3_small_050\ndata: pictures\nmodel: owls\n")
    return load_recipe(recipe)


def told(loaded: LoadedRecipe, results: list[StepResult], *, terminal: bool, verbose: bool = False) -> str:
    written = io.StringIO()
    console = Console(file=written, force_terminal=terminal, width=80, highlight=False)
    with progress_listener(console, loaded, RunSettings(Path("w"), Path("r")), verbose=verbose) as listener:
        for result in results:
            listener.started(result.step)
            listener.finished(result)
    return written.getvalue()


def test_a_step_is_one_plain_line_in_words(loaded: LoadedRecipe) -> None:
    name, *lines = told(loaded, [DONE], terminal=False).splitlines()

    assert name == f"owls ({loaded.path})"
    assert [line.split() for line in lines] == [["wrap", "done", "1.2", "s", "25,557,032", "parameters"]]


def test_only_what_failed_has_its_whole_reason_and_the_command_to_run_it_again(loaded: LoadedRecipe) -> None:
    text = told(loaded, [DONE, FAILED], terminal=False)

    assert str(FAILED.detail["error"]) in text
    assert [line.strip() for line in text.splitlines() if "again:" in line] == [
        f"again: saccade-export step {loaded.path} calibrate --work w --repository r --no-sign"
    ]
    assert "\x1b" not in text


def test_verbose_shows_every_fact_and_command(loaded: LoadedRecipe) -> None:
    text = told(loaded, [DONE], terminal=False, verbose=True)

    assert "parameters=25557032 folds=3" in text
    assert "again: saccade-export step" in text


def test_what_answers_will_lack_is_told_once_with_its_reason(loaded: LoadedRecipe) -> None:
    lacking = {"no_trust": "the data has 8 pictures"}
    data = StepResult("data", "done", None, 1.0, {"test": 9, "tuning": 9, "calibration": 8, "notes": 1, **lacking})
    made = [StepResult(f"precision.{name}", "done", None, 1.0, {"precision": name, **lacking}) for name in "ab"]
    masked = StepResult("precision.c", "done", None, 1.0, {"no_explain": "a mask says it"})

    lines = [line.strip() for line in told(loaded, [data, *made, masked], terminal=False).splitlines()]

    assert [line for line in lines if line.startswith("answers")] == [
        "answers will have no score of trust: the data has 8 pictures",
        "answers will have no explanation: a mask says it",
    ]


def test_a_terminal_of_80_columns_keeps_a_step_on_one_line(loaded: LoadedRecipe) -> None:
    long = StepResult("preprocess", "done", None, 1.0, {"compared_with": "the transform of its own library, " * 3})

    text = told(loaded, [long], terminal=True)

    (line,) = [part for part in text.splitlines() if "compared with" in part]
    assert "…" in line
    assert text.count("compared with") == 1


def test_a_step_without_words_of_its_own_shows_a_few_facts() -> None:
    result = StepResult("qualify.fp32", "done", None, 1.0, {"top1": 0.98765, "drop_upper": 0.0, "a": 1, "b": 2})

    assert facts_in_words(result) == "top1 0.9877, drop at most 0, a 1"


@pytest.mark.parametrize(
    ("step", "detail", "words"),
    [
        ("targets", {"tensorrt": True}, "TensorRT takes the graph"),
        ("targets", {"tensorrt": False, "reason": "no kernel"}, "TensorRT does not take the graph"),
        (
            "precision.fp32",
            {"precision": "fp32", "interleaved_first_convolution": False},
            "precision fp32",
        ),
        (
            "precision.fp16",
            {"precision": "fp16", "share_of_flops": 0.9876},
            "precision fp16, 98.8% multiply-adds in it",
        ),
        (
            "preprocess",
            {"compared_with": "nothing: the source has no transform of its own"},
            "its library has no pixels to compare with",
        ),
        ("onnx_from_torch", {"nodes": 7, "relative_error": 0.0}, "7 nodes, answers exactly the network's"),
        (
            "onnx_from_torch",
            {"nodes": 7, "relative_error": 2.4e-7},
            "7 nodes, answers at most 2e-07 (relative) from the network's",
        ),
        (
            "calibrate",
            {"observed_tensors": 0},
            "no ranges: no variant needs them, or there are too few calibration pictures",
        ),
        ("calibrate", {"observed_tensors": 3, "calibration_images": 32}, "3 tensors over 32 pictures"),
        (
            "qualify.fp32",
            {"same_box_f1": 1.0, "share_fp32": 1.0},
            "100.0% box f1 with the network's own answers, 100.0% multiply-adds in fp32",
        ),
    ],
)
def test_facts_are_told_as_people_say_them(step: str, detail: dict[str, str | float], words: str) -> None:
    assert facts_in_words(StepResult(step, "done", None, 1.0, detail)) == words


@pytest.mark.parametrize(
    ("last", "verdict"),
    [
        (
            StepResult("publish", "done", None, 1.0, PUBLISHED),
            "owls: published as repository/owls/3 with fp32; unsigned",
        ),
        (
            StepResult("publish", "done", None, 1.0, SIGNED),
            "owls: unchanged, published before as repository/owls/3 with fp32, waiting for a device: fp16; "
            "signed by 0123456789abcdef",
        ),
        (StepResult("wrap", "done", None, 1.0, {}), "owls: step wrap is done"),
        (StepResult("wrap", "failed", None, 1.0, {"error": "no"}), "owls: nothing is published: step wrap failed: no"),
    ],
)
def test_the_verdict_is_one_sentence(last: StepResult, verdict: str) -> None:
    assert list(verdict_lines("owls", [last], None)) == [verdict]


def test_the_verdict_names_what_could_not_be_made() -> None:
    lost = StepResult("precision.int8-cpu", "lost", None, 1.0, {"error": "no"})

    (line,) = verdict_lines("owls", [lost, StepResult("publish", "done", None, 1.0, PUBLISHED)], None)

    assert line.endswith("with fp32; could not be made: precision.int8-cpu; unsigned")


@pytest.mark.parametrize(("high", "is_told"), [(0.4, True), (0.95, False)])
def test_a_slice_that_surely_fares_worse_is_named_with_the_verdict(high: float, is_told: bool) -> None:
    found = qualified("fp32")
    south = SliceFigure(
        name="camera=south", images=80, value=0.3, ci_low=0.2, ci_high=high, reference=0.3, drop=found.drop
    )
    passed = VariantReport(qualify=qualified("fp32", slices=(south,)), gate=decision(check("parity")))

    lines = verdict_lines(
        "owls", [StepResult("publish", "done", None, 1.0, PUBLISHED)], whole_report(variants=(passed,))
    )

    told = (
        "owls: fp32 is worse on camera=south (80 pictures): top1 0.3000, of all 0.9000; "
        "`gate: {min_slice_metric: …}` is a floor"
    )
    assert (told in list(lines)) == is_told


def test_labels_that_no_test_picture_shows_are_named_with_the_verdict() -> None:
    figures = (None, *(0.9 for _ in LABELS[1:]))
    report = whole_report(
        variants=(VariantReport(qualify=qualified("fp32", per_class=figures), gate=decision(check("parity"))),)
    )

    lines = list(verdict_lines("owls", [StepResult("publish", "done", None, 1.0, PUBLISHED)], report))

    assert lines[0] == f"owls: not measured, because no test picture shows them: {LABELS[0]}"
    assert f"No test picture shows {LABELS[0]}: nothing is known of them." in markdown(report)
