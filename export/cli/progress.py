"""Shows a run as one line per step: behind a spinner on a terminal, as plain lines without control codes elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

from saccade.export.artifact import Detail, StepResult
from saccade.export.data.data_notes import NO_TRUST
from saccade.export.data.data_step import DATA_JSON, read_data_report
from saccade.export.data.data_table import print_data
from saccade.export.pipeline import Listener, RunSettings, planned_steps, rerun_command
from saccade.export.recipe import LoadedRecipe
from saccade.export.steps import qualified_name

_LONGEST = 60  # characters of the longest fact that is shown beside others
_MOST = 3  # facts of a step that has no words of its own below
_WHOLE = ("error", "reason", "not_batchable_reason")  # each is a sentence, and gets a line of its own
_WITHOUT = {"no_explain": "answers will have no explanation", "no_trust": NO_TRUST}  # so is each of these, told once
_WORDS = {  # what a person wants to know of a step; `-v` shows the rest
    "data": "{test:,} test, {tuning:,} tuning, {calibration:,} calibration pictures",
    "wrap": "{parameters:,} parameters",
    "preprocess": "pixels compared with {compared_with}",
    "onnx_from_torch": "{nodes} nodes, answers at most {relative_error:.1g} (relative) from the network's",
    "reference": "{metric} {value:.4f}",
    "onnx_optimization": "{nodes_before} nodes became {nodes_after}",
    "calibrate": "{observed_tensors} tensors over {calibration_images} pictures",
    "speed": "{in_turns}",
    "gate": "accepted: {variants}",
    "publish": "version {version}",
}
_IN_WORDS: Mapping[str, Mapping[str, str]] = {  # of a step's first fact, where its value needs words of its own
    "preprocess": {"nothing: the source has no transform of its own": "its library has no pixels to compare with"},
    "calibrate": {"0": "no ranges: no variant needs them, or there are too few calibration pictures"},
    "targets": {"True": "TensorRT takes the graph", "False": "TensorRT does not take the graph"},
}
_NAMES = {
    "drop_upper": "drop at most",
    "deploy_to_bare": "speed as a share of the bare file's",
    "interleaved_first_convolution": "first convolution reads pixels as they lie",
}
_STYLES = {"done": "green", "cached": "cyan", "lost": "red", "failed": "red"}


@contextmanager
def progress_listener(
    console: Console, loaded: LoadedRecipe, settings: RunSettings, *, verbose: bool = False
) -> Iterator[Listener]:
    """Yields a listener that reports one recipe's steps on `console`; `verbose` shows every fact and the data."""
    names = [qualified_name(step.name, part) for step, part in planned_steps(loaded)]
    width = max(map(len, names))
    told: set[str] = set()

    def tell(result: StepResult) -> None:
        style = _STYLES[result.status] if console.is_terminal else ""
        facts = _all_facts(result.detail) if verbose else facts_in_words(result)
        first, *more = step_lines(result, facts, width)
        without = [f"{words}: {result.detail[key]}" for key, words in _WITHOUT.items() if key in result.detail]
        more += [text for text in without if text not in told]
        told.update(without)
        if verbose or result.status in ("lost", "failed"):
            more.append(f"again: {rerun_command(loaded.path, settings, result.step)}")
        is_cut = console.is_terminal and not verbose
        console.print(first, style=style, markup=False, no_wrap=is_cut, overflow="ellipsis", soft_wrap=not is_cut)
        for text in more:
            console.print(f"      {text}", style=style, markup=False, soft_wrap=True)
        if verbose and result.step == "data" and result.artifact is not None:
            print_data(console, read_data_report(result.artifact.file(DATA_JSON)))

    console.print(f"{loaded.recipe.model} ({loaded.path})", markup=False, soft_wrap=True)
    if not console.is_terminal:
        yield Listener(started=lambda name: None, noted=lambda text: None, finished=tell)
        return
    text = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))
    with Progress(SpinnerColumn(), text, TimeElapsedColumn(), console=console, transient=True) as progress:
        line = progress.add_task("")
        current = ""

        def started(name: str) -> None:
            nonlocal current
            current = f"{names.index(name) + 1}/{len(names)} {name}"
            progress.reset(line, description=current)

        yield Listener(
            started,
            noted=lambda text: progress.update(line, description=f"{current}: {text}"),
            finished=tell,
        )


def step_lines(result: StepResult, facts: str, width: int) -> list[str]:
    """Returns a step's line, and one for each sentence about it; width: of the longest step's name."""
    line = f"  {result.step:<{width}}  {result.status:<6} {result.seconds:6.1f} s  {facts}".rstrip()
    return [line, *(str(result.detail[key]) for key in _WHOLE if result.detail.get(key))]


def facts_in_words(result: StepResult) -> str:
    """Returns the few facts of a step that people look for, in words."""
    name = result.step.partition(".")[0]
    if name == "gate" and not result.detail.get("variants", "-"):
        return "no variant is accepted"
    notes = result.detail.get("notes")
    first = str(next(iter(result.detail.values()), ""))
    try:
        text = _IN_WORDS.get(name, {}).get(first) or _WORDS[name].format_map(result.detail)
    except KeyError:  # no words for this step, or it failed before it knew them
        text = ", ".join(_few_facts(result.detail))
    if name == "onnx_from_torch" and result.detail.get("relative_error") == 0.0:
        text = f"{result.detail['nodes']} nodes, answers exactly the network's"
    return f"{text}, {notes} notes (-v)" if notes and result.status != "failed" else text


def _few_facts(detail: Detail) -> list[str]:
    """Returns the first facts as people say them: what is not so is left out, shares are percentages."""
    told = []
    for key, value in _short_facts(detail).items():
        name, given = _NAMES.get(key, key.replace("_", " ")), detail[key]
        if given is False:
            continue
        if given is True:
            told.append(name)
        elif key.startswith(("same_", "share_")) and isinstance(given, int | float):
            kind = key.partition("_")[2].replace("_", " ")
            about = f"{kind} with the network's own answers" if key.startswith("same_") else f"multiply-adds in {kind}"
            told.append(f"{given:.1%} {'multiply-adds in it' if key == 'share_of_flops' else about}")
        else:
            told.append(f"{name} {value}")
    return told[:_MOST]


def _all_facts(detail: Detail) -> str:
    """Joins the facts of a step except lists of operators, which are in the report."""
    return " ".join(f"{key}={value}" for key, value in _short_facts(detail).items())


def _short_facts(detail: Detail) -> Mapping[str, str]:
    texts = {key: f"{value:.4g}" if isinstance(value, float) else str(value) for key, value in detail.items()}
    return {key: text for key, text in texts.items() if key not in (*_WHOLE, *_WITHOUT) and 0 < len(text) <= _LONGEST}
