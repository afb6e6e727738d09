"""Runs the steps of `step_table.py` in order; a finished step is reused until something that it depends on changes."""

from __future__ import annotations

import errno
import logging
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from saccade.export.artifact import (
    Artifact,
    StepIdentity,
    StepResult,
    building,
    digest_of,
    finish,
    finished_artifact,
)
from saccade.export.convert.batching import settled
from saccade.export.data.datasets import DataStore
from saccade.export.errors import DataRefused, ExportError, RecipeError
from saccade.export.import_closure import closure_digest, own_packages
from saccade.export.publish.signing import Signer
from saccade.export.recipe import LoadedRecipe
from saccade.export.step_table import STEPS
from saccade.export.steps import Step, StepContext, qualified_name, tool_versions
from saccade.export.variants import FORMS, TRAITS, Form, VariantKind, forms_of
from saccade.service import __version__
from saccade.service.errors import SaccadeError
from saccade.service.repository.object_store.address import shown

_log = logging.getLogger(__name__)
# torch, numpy and the runtimes have no common error for it.
_NO_MEMORY = re.compile(r"allocate (\w+ )?memory|out of memory|unable to allocate", re.IGNORECASE)
# What the system answers to a write that it does not take; other OSErrors of a step say themselves what is missing.
_WRITE_REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


@dataclass(frozen=True, slots=True)
class RunSettings:
    """The directories and options of a run."""

    work: Path  # step directories live below it
    repository: Path
    redo: str | None = None  # qualified name of a step to run again although it is finished
    until: str | None = None  # qualified name of the last step to run
    signer: Signer | None = None  # signs what is published


@dataclass(frozen=True, slots=True)
class Listener:
    """Callbacks that hear what happens; the programs draw progress with them."""

    started: Callable[[str], None]
    noted: Callable[[str], None]
    finished: Callable[[StepResult], None]


Part = VariantKind | Form | None


def planned_steps(loaded: LoadedRecipe) -> list[tuple[Step, Part]]:
    """Returns every step with every form or variant it runs for, in order."""
    return [(step, part) for step in STEPS for part in _parts_of(step, loaded)]


def _parts_of(step: Step, loaded: LoadedRecipe) -> tuple[Part, ...]:
    if not step.is_asked(loaded):
        return ()
    match step.scope:
        case "model":
            return (None,)
        case "form":
            return tuple(form for form in forms_of(loaded.recipe.variants) if form != "dense" or not step.skips_dense)
        case "variant":
            return loaded.recipe.variants


def run_pipeline(loaded: LoadedRecipe, settings: RunSettings, data: DataStore, listener: Listener) -> list[StepResult]:
    """Runs the steps until one fails or `settings.until` is done. A variant that cannot be made costs only itself.

    Raises RecipeError for an unknown step name.
    """
    names = [qualified_name(step.name, part) for step, part in planned_steps(loaded)]
    for name in (settings.redo, settings.until):
        if name is not None and name not in names:
            raise RecipeError(f"no step {name!r}; this recipe has: {', '.join(names)}")
    needed = _needed(settings.until, loaded)
    results: list[StepResult] = []
    made: dict[str, Artifact] = {}
    lost: dict[VariantKind, str] = {}
    for step, part in planned_steps(loaded):
        name = qualified_name(step.name, part)
        left = _without(loaded, lost)
        if part not in _parts_of(step, left) or name not in needed:
            continue
        listener.started(name)
        result = _run_step(step, part, settled(left, made), settings, made, data, listener, lost)
        gone = _variants_of(step, part, left)
        if result.status == "lost" and (len(gone) == len(left.recipe.variants) or name == settings.until):
            result = replace(result, status="failed")  # nothing is left that could be published
        listener.finished(result)
        results.append(result)
        if result.artifact is not None:
            made[name] = result.artifact
        if result.status == "lost":
            lost |= dict.fromkeys(gone, f"{name}: {result.detail['error']}")
        if result.status == "failed" or name == settings.until:
            break
    return results


def _needed(until: str | None, loaded: LoadedRecipe) -> set[str]:
    """Full names of the steps that `until` builds on, itself included; all steps without it."""
    parts = {qualified_name(step.name, part): (step, part) for step, part in planned_steps(loaded)}
    found: set[str] = set()
    left = list(parts) if until is None else [until]
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += [made for _, made in _input_names(*parts[name], loaded)]
    return found


def _without(loaded: LoadedRecipe, lost: Mapping[VariantKind, str]) -> LoadedRecipe:
    """The recipe with the variants that are left."""
    if not lost:
        return loaded
    variants = tuple(variant for variant in loaded.recipe.variants if variant not in lost)
    return loaded.model_copy(update={"recipe": loaded.recipe.model_copy(update={"variants": variants})})


def _variants_of(step: Step, part: Part, loaded: LoadedRecipe) -> tuple[VariantKind, ...]:
    """The variants that cannot be made without this step."""
    match step.scope:
        case "variant":
            return tuple(variant for variant in loaded.recipe.variants if variant == part)
        case "form" if part != "dense":
            return tuple(variant for variant in loaded.recipe.variants if TRAITS[variant].form == part)
        case _:
            return loaded.recipe.variants


def rerun_command(recipe: Path, settings: RunSettings, step: str) -> str:
    """Returns the command that runs one step again, alone, with the same directories, ready to paste."""
    repository = shown(settings.repository)
    words = ["saccade-export", "step", recipe, step, "--work", settings.work, "--repository", repository]
    if settings.signer is None:
        words += ["--no-sign"]
    elif not settings.signer.is_account:
        words += ["--sign-key", settings.signer.path]
    return shlex.join(str(word) for word in words)


def _run_step(
    step: Step,
    part: Part,
    loaded: LoadedRecipe,
    settings: RunSettings,
    made: dict[str, Artifact],
    data: DataStore,
    listener: Listener,
    lost: Mapping[VariantKind, str],
) -> StepResult:
    name = qualified_name(step.name, part)
    start = time.perf_counter()
    try:
        inputs = {key: made[name_made] for key, name_made in _input_names(step, part, loaded)}
        digest = digest_of(_identity(step, part, loaded, inputs))
        directory = settings.work / loaded.recipe.model / f"{name}-{digest[:12]}"
        if step.is_reusable and name != settings.redo:
            artifact = finished_artifact(directory, digest)
            if artifact is not None:
                return StepResult(name, "cached", artifact, time.perf_counter() - start, artifact.detail)
        with building(directory) as out:
            context = StepContext(
                loaded,
                _variant(part),
                _form(part),
                out,
                inputs,
                data,
                settings.repository,
                listener.noted,
                settings.signer,
                lost,
            )
            detail = step.run(context)
            seconds = time.perf_counter() - start
            artifact = finish(out, directory, digest, detail, seconds)
    except DataRefused as error:  # what is wrong with the data is wrong for all variants
        return StepResult(name, "failed", None, time.perf_counter() - start, {"error": str(error)})
    except (ExportError, SaccadeError) as error:
        return StepResult(
            name,
            "failed" if step.scope == "model" else "lost",
            None,
            time.perf_counter() - start,
            {"error": str(error)},
        )
    except Exception as error:  # converters and runtimes raise whatever they like; the other recipes still run
        if isinstance(error, OSError) and error.errno in _WRITE_REFUSED:
            text = f"cannot write to {error.filename or settings.work / loaded.recipe.model}: {error.strerror}"
        elif isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)):
            side = loaded.recipe.preprocess
            text = (
                f"this machine has too little memory for an input of {side.width}x{side.height} pixels: make it "
                f"smaller in `preprocess`, or export where there is more ({f'{error}'.partition(chr(10))[0]})"
            )
        else:
            _log.exception("step_failed %s %s", loaded.recipe.model, name)
            text = f"{type(error).__name__}: {error}".splitlines()[0]
        return StepResult(
            name, "failed" if step.scope == "model" else "lost", None, time.perf_counter() - start, {"error": text}
        )
    return StepResult(name, "done" if step.is_good(detail) else "failed", artifact, seconds, detail)


def _input_names(step: Step, part: Part, loaded: LoadedRecipe) -> Iterator[tuple[str, str]]:
    """Yields what a step calls each input, and the name it was made under.

    A step of a variant or form reads the inputs of that variant or form, a step of the model reads all parts. Steps
    behind compression read its output in place of `wrap`'s.
    """
    steps = {candidate.name: candidate for candidate in STEPS}
    for name in step.inputs:
        source = steps[name]
        if step.scope == "model":
            yield from ((made, made) for made in (qualified_name(name, each) for each in _parts_of(source, loaded)))
        elif source.scope == "variant":
            yield qualified_name(name, part), qualified_name(name, part)
        elif source.scope == "form":
            if _form(part) != "dense" or not source.skips_dense:
                yield name, qualified_name(name, _form(part))
        elif name == "wrap" and step.name != "compress" and _form(part) != "dense":
            yield name, qualified_name("compress", _form(part))
        else:
            yield name, name


def _variant(part: Part) -> VariantKind | None:
    return next((variant for variant in TRAITS if variant == part), None)


def _form(part: Part) -> Form:
    variant = _variant(part)
    if variant is not None:
        return TRAITS[variant].form
    return next((form for form in FORMS if form == part), "dense")


def _identity(step: Step, part: Part, loaded: LoadedRecipe, inputs: dict[str, Artifact]) -> StepIdentity:
    measured = {candidate.name for candidate in STEPS if candidate.is_measured}
    return StepIdentity(
        step=qualified_name(step.name, part),
        config=step.config(loaded),
        inputs={
            name: artifact.digest if name.partition(".")[0] in measured else artifact.content
            for name, artifact in inputs.items()
        },
        tools={"saccade": __version__, "python": f"{sys.version_info.major}.{sys.version_info.minor}"}
        | tool_versions(step.tools),
        sources=closure_digest(step.run.__module__, own_packages()),
    )
