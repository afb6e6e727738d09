"""One entry, in a process of its own. Promises: the product's own path; what is known so far survives a crash.

`python -m tests.matrix.probe ENTRY WORK` writes `WORK/row.json` after every stage.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter

from saccade.export.data.datasets import DataStore
from saccade.export.errors import ExportError
from saccade.export.graph.onnx_graph import MODEL_FILE
from saccade.export.pipeline import Listener, RunSettings, run_pipeline
from saccade.export.recipe import load_recipe
from saccade.export.sources import source_facts
from saccade.export.sources.specs import SourceSpec
from saccade.export.variants import VariantKind
from saccade.models.contract.manifest import read_manifest
from saccade.service.errors import SaccadeError
from tests.matrix.documents import PICTURES, VARIANTS, recipe_document, resized, small_batches, source_document
from tests.matrix.drawn_pictures import write_pictures
from tests.matrix.entries import Entry, entry_of
from tests.matrix.own_answers import own_answers
from tests.matrix.photographs import write_photographs
from tests.matrix.plans import plans_of
from tests.matrix.readings import Run, denial_of, export_figures, int8_of, reason_of
from tests.matrix.rows import Int8, OwnAnswers, Row, Served, replace_file, row_key
from tests.matrix.served import served_answer
from tests.matrix.trained import NotFetched
from tests.matrix.weights import write_weights

ROW_NAME = "row.json"
_DEFAULT_SIDE = 224  # of transformers' networks, whose facts come from the checkpoint that is yet to be written
_INT8 = "precision.int8-cpu"
_GRAPH = "onnx_optimization"
_NOT_TRIED = "not tried in this run"


@dataclass(slots=True)
class Notebook:
    """Facts about one entry as they become known; every note is on disk before the next stage begins."""

    entry: Entry
    work: Path
    started: float = field(default_factory=time.monotonic)
    facts: dict[str, Any] = field(default_factory=dict)
    is_served_only: bool = False  # neither int8 nor plans, which take most of the time

    def note(self, **facts: Any) -> None:
        self.facts.update(facts)
        replace_file(self.work / ROW_NAME, self.row().model_dump_json().encode())

    def row(self) -> Row:
        entry = self.entry
        return Row(
            id=entry.id,
            key=row_key(entry),
            family=entry.family,
            source=f"{entry.source} of {entry.saved_from}" if entry.saved_from else entry.source,
            task=entry.task,
            seconds=round(time.monotonic() - self.started, 1),
            processor_seconds=round(sum(use.ru_utime + use.ru_stime for use in _resource_use()), 1),
            peak_gib=round(_resource_use()[0].ru_maxrss / 2**20, 2),
            **self.facts,
        )


def _resource_use() -> list[resource.struct_rusage]:
    """This process's, then that of its children."""
    return [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]


def probe(entry: Entry, work: Path, is_served_only: bool = False) -> Row:
    """Everything that is asked of an entry, in order; a failure ends it and is a fact like others."""
    book = Notebook(entry, work, is_served_only=is_served_only)
    try:
        _probe(book)
    except (ExportError, NotFetched, SaccadeError) as error:
        book.note(failure=f"{book.facts['failure']}: {error}")
    return book.row()


def _probe(book: Notebook) -> None:
    """While a stage runs, `failure` is its name: that is what remains if the process dies in it."""
    entry, work = book.entry, book.work
    book.note(failure="writing weights")
    size = input_size(entry)
    weights = write_weights(entry, size, work)
    book.note(size=size, failure="exporting")
    if entry.trained is not None:
        write_pictures(entry.trained, work / PICTURES)
    document = recipe_document(entry, Path(os.path.relpath(weights, work)).as_posix())
    if book.is_served_only:  # the proof of conversion still runs the largest batch
        document = small_batches(document)
    run = _run(book, document, ("fp32",) if book.is_served_only else VARIANTS)
    book.note(int8=int8_of(run), **export_figures(run))
    if book.is_served_only:
        book.note(int8=Int8(is_built=False, note=_NOT_TRIED), plan_problem=_NOT_TRIED)
    else:
        if run.failed is not None and run.failed.step == _INT8:
            run = _run(book, document, ("fp32",))
        _note_plans(book, document, run)
    if run.failed is not None:
        book.note(failure=f"{run.failed.step}: {reason_of(run.failed)}")
        return
    book.note(failure="serving")
    manifest, _ = read_manifest(work / "repository" / entry.id / "1")
    figure = served_answer(work / "repository", manifest)
    own = None
    if entry.trained is not None:
        drawn = sorted((work / PICTURES / "test").rglob("*.jpg"))
        seen = [*drawn, *write_photographs(work / "photographs")]
        own = own_answers(entry.trained, weights, work / "repository", manifest, seen)
    book.note(
        not_batchable_reason=manifest.not_batchable_reason,
        served=figure,
        own=own,
        denied=denial_of(run),
        failure=_problem_of(figure, own),
    )


def _problem_of(figure: Served, own: OwnAnswers | None) -> str:
    if not figure.is_equal:
        return f"serving: {figure.problem}"
    return f"exporting: {own.problem}" if own is not None and own.problem else ""


def _note_plans(book: Notebook, document: dict[str, Any], run: Run) -> None:
    """Plans come from the optimised graph, of this size or of the one that the entry asks plans for."""
    size = book.entry.plan_size
    if size is not None:
        book.note(failure="exporting at plan size", plan_size=size)
        run = _run(book, resized(document, size), ("fp32",), until=_GRAPH)
    made = run.artifact(_GRAPH)
    if made is None:
        return
    book.note(failure="building plans")
    plans, problem = plans_of(made.file(MODEL_FILE))
    book.note(plans=plans, plan_problem=problem, fallback="onnxruntime" if problem else "")


def input_size(entry: Entry) -> tuple[int, int]:
    """Width and height of the network's input."""
    given = entry.preprocess
    if "width" in given:
        return int(given["width"]), int(given["height"])
    kind = entry.source.partition("/")[0]
    if kind not in ("timm", "torchvision"):
        return _DEFAULT_SIDE, _DEFAULT_SIDE
    facts = source_facts(_SOURCE.validate_python(source_document(entry)), None)
    assert facts.preprocess is not None
    return facts.preprocess.width, facts.preprocess.height


def _run(book: Notebook, document: dict[str, Any], variants: Sequence[VariantKind], until: str | None = None) -> Run:
    """Runs the pipeline on a recipe beside the weights; finished steps of an earlier run are taken over."""
    path = book.work / "recipe.yaml"
    path.write_text(yaml.safe_dump({**document, "variants": list(variants)}))
    settings = RunSettings(work=book.work / "steps", repository=book.work / "repository", until=until)
    listener = Listener(
        started=lambda step: book.note(failure=f"step {step}"), noted=lambda text: None, finished=lambda result: None
    )
    results = run_pipeline(load_recipe(path), settings, DataStore(), listener)
    return Run({result.step: result for result in results})


def main() -> None:
    parser = argparse.ArgumentParser(description="one entry of the matrix")
    parser.add_argument("entry")
    parser.add_argument("work", type=Path)
    parser.add_argument("--core", type=int, help="the one core to run on, so that jobs do not slow each other")
    parser.add_argument("--served-only", action="store_true", help="neither int8 nor plans")
    arguments = parser.parse_args()
    if arguments.core is not None:
        os.sched_setaffinity(0, {arguments.core})
    probe(entry_of(arguments.entry), arguments.work, arguments.served_only)


_SOURCE: TypeAdapter[SourceSpec] = TypeAdapter(SourceSpec)

if __name__ == "__main__":
    main()
