"""Brings the library's files through the product and counts whose answers are the same."""

from __future__ import annotations

import hashlib
import subprocess
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from saccade.export.data.datasets import DataStore
from saccade.export.errors import ExportError
from saccade.export.graph.onnx_graph import MODEL_FILE
from saccade.export.pipeline import Listener, RunSettings, run_pipeline
from saccade.export.qualification.compare import compared
from saccade.export.qualification.picture_answers import PictureAnswer, picture_boxes, read_answers
from saccade.export.recipe import LoadedRecipe, load_recipe
from saccade.models.contract.manifest import read_manifest
from saccade.service.errors import SaccadeError
from tests.matrix.rows import source_digest, tool_versions
from tests.matrix.served import compared_variant, served_answer
from tests.matrix.ultralytics.environment import REPOSITORY, interpreter, run_inside
from tests.matrix.ultralytics.networks import LIBRARY, VERSION, Entry, Form, compared_pictures
from tests.matrix.ultralytics.rows import Row, counted

ANSWERS = "answers.json"
_THRESHOLD = 0.25  # what the library's `predict` shows
_TIMEOUT_S = 1800.0
_GRAPH = "onnx_optimization"
_INSIDE = "tests.matrix.ultralytics.inside"


def key_of(entry: Entry, form: Form) -> str:
    """Changes with the entry, with any source file of ours and with any version of a tool."""
    text = f"{entry!r}\0{form}\0{VERSION}\0{tool_versions()!r}\0{source_digest()}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def rows_of(entry: Entry, work: Path, forms: Sequence[Form], *, is_published: bool) -> Iterator[Row]:
    """One row per form as it is finished; what fails is a row too. is_published: otherwise `run` is left out."""
    row = partial(Row, id=entry.id, library=f"{LIBRARY} {VERSION}", task=entry.task, side=entry.side)
    places = [str((work / name).absolute()) for name in (entry.id, "photographs", "scenes")]
    failure = ""
    try:
        run_inside(work, _INSIDE, entry.id, *places, timeout_s=_TIMEOUT_S)
    except subprocess.CalledProcessError as error:
        failure = _last_line(error)
    for form in forms:
        start = time.monotonic()
        facts: dict[str, Any] = {"failure": failure}
        try:
            if not failure:
                facts = figures(entry, form, work, is_published=is_published)
        except subprocess.CalledProcessError as error:
            facts = {"failure": _last_line(error)}
        except (ExportError, SaccadeError) as error:
            facts = {"failure": str(error)}
        yield row(form=form, key=key_of(entry, form), seconds=round(time.monotonic() - start, 1), **facts)


def figures(entry: Entry, form: Form, work: Path, *, is_published: bool) -> dict[str, Any]:
    """`init`, `run` and a server, and all pictures. Raises CalledProcessError for a command that refuses."""
    folder, photographs, scenes = work / entry.id / form, work / "photographs", work / "scenes"
    folder.mkdir(parents=True, exist_ok=True)
    recipe = folder / "recipe.yaml"
    recipe.unlink(missing_ok=True)
    data = (str(scenes),) if entry.is_trained else (str(photographs), "--unlabelled")
    _export("init", str(work / entry.id / f"{form}.onnx"), "--out", str(recipe), "--data", *data)
    loaded = load_recipe(recipe)
    graph, facts = _published(loaded, recipe, folder) if is_published else (_deploy_graph(loaded, folder), {})
    pictures = compared_pictures(entry, photographs, scenes)
    answers = library_answers(entry, work / entry.id / ANSWERS, loaded, pictures)
    return {
        **counted(list(compared(loaded, graph, lambda picture: answers[picture.name], pictures, _THRESHOLD))),
        "photographs": sum(picture.parent == photographs for picture in pictures),
        "scenes": sum(picture.parent != photographs for picture in pictures),
        **facts,
    }


def _published(loaded: LoadedRecipe, recipe: Path, folder: Path) -> tuple[Path, dict[str, Any]]:
    """The file that is served, and what a server answers with it."""
    repository = folder / "repository"
    steps = ("--repository", str(repository), "--work", str(folder / "steps"), "--no-sign")
    _export("run", str(recipe), "--variant", "fp32", *steps)
    version = newest_version(repository / loaded.recipe.model)
    manifest, _ = read_manifest(version)
    variant = compared_variant(manifest)
    served = served_answer(repository, manifest)
    return version / variant.file, {
        "published": variant.name,
        "served": f"{served.items} values within {served.largest_difference:.0e}" if served.is_equal else "no",
        "failure": "" if served.is_equal else f"serving: {served.problem}",
    }


def _deploy_graph(loaded: LoadedRecipe, folder: Path) -> Path:
    """What would be published, before it is measured and judged. Raises ExportError."""
    quiet = Listener(started=lambda step: None, noted=lambda text: None, finished=lambda result: None)
    settings = RunSettings(work=folder / "steps", repository=folder / "repository", until=_GRAPH)
    last = run_pipeline(loaded, settings, DataStore(), quiet)[-1]
    if last.artifact is None:
        raise ExportError(f"step {last.step} failed: {last.detail.get('error', '')}")
    return last.artifact.file(MODEL_FILE)


def newest_version(model: Path) -> Path:
    return max((path for path in model.iterdir() if path.name.isdecimal()), key=lambda path: int(path.name))


def library_answers(entry: Entry, path: Path, loaded: LoadedRecipe, pictures: list[Path]) -> dict[str, PictureAnswer]:
    """A picture where the library found nothing is an empty answer, and not one that nobody gave."""
    ids = {index: index for index in range(len(loaded.recipe.labels))}
    has_masks = entry.task == "segment"
    answers = read_answers(path, {}, ids, loaded.recipe.labels, has_masks=has_masks)
    nothing = picture_boxes([], () if has_masks else None)
    return {picture.name: answers.get(picture.name, nothing) for picture in pictures}


def _export(*arguments: str) -> None:
    command = [interpreter(), "-m", "saccade.export", *arguments]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True, timeout=_TIMEOUT_S)


def _last_line(error: subprocess.CalledProcessError) -> str:
    lines = [line.strip() for line in f"{error.stdout}\n{error.stderr}".splitlines() if line.strip()]
    what = error.cmd[3]  # `init`, `run`, or the network whose making failed
    return f"{what}: {lines[-1][:400] if lines else f'exit code {error.returncode}'}"
