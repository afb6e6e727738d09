"""Loads, measures, recovers and saves a traced deploy module; both forms of compression share these steps."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from saccade.export.artifact import Artifact
from saccade.export.compression.recovery import Lesson, Recovered, recover
from saccade.export.compression.recovery_loss import Meaning
from saccade.export.compression.spec import RecoverySpec
from saccade.export.convert.normalisation import relative_l2
from saccade.export.convert.wrap import DEPLOY_FILE, load_deploy_program, read_wrap_facts
from saccade.export.data.datasets import calibration_split, ensure_calibration_allowed, has_split
from saccade.export.data.image_split import ImageSplit
from saccade.export.data.labelled_images import ClassSample
from saccade.export.errors import GraphError, RecipeError
from saccade.export.qualification.accuracy import Answer, evaluate
from saccade.export.qualification.evidence import point_value
from saccade.export.steps import StepContext
from saccade.models.contract.specs import Task, output_tensors

MAX_PROOF_ERROR = 1e-5  # relative L2 of raw outputs; a change that keeps the function may only round differently
PROOF_IMAGES = 4
_RECORD = "step.json"

Document = dict[str, Any]  # JSON-ready


@dataclass(frozen=True, slots=True, eq=False)
class TracedNetwork:
    """A traced deploy module and the position of its raw outputs."""

    program: Any  # torch.export.ExportedProgram
    module: fx.GraphModule  # the same program, to be run and changed
    first_raw: int  # number of the first raw output among all outputs
    meaning: Meaning
    answers: int  # number of leading outputs that are the task's answer

    @property
    def ends(self) -> tuple[str, ...]:
        """Returns the names of the nodes that are raw outputs."""
        output = next(node for node in self.module.graph.nodes if node.op == "output")
        nodes = output.args[0]
        assert isinstance(nodes, (list, tuple))
        return tuple(str(node) for node in nodes[self.first_raw :])

    def raw(self, images: Tensor) -> list[Tensor]:
        with torch.inference_mode():
            return list(self.module(images)[self.first_raw :])


def traced_network(directory: Path, context: StepContext) -> TracedNetwork:
    """Loads the deploy module that `wrap` left in `directory`."""
    program = load_deploy_program(directory)
    facts = read_wrap_facts(directory)
    names = str(facts["output_names"]).split(",")
    first_raw = next(index for index, name in enumerate(names) if name.startswith("network_"))
    count = len(output_tensors(context.recipe.task, context.recipe.preprocess))
    return TracedNetwork(program, program.module(), first_raw, _meaning(context, facts), count)


def tuning_metric(network: TracedNetwork, context: StepContext) -> float:
    """Measures the task's metric of `network.module` on the tuning split."""
    return _metric_of(network.module, network.answers, context)


def _metric_of(module: fx.GraphModule, answers: int, context: StepContext) -> float:
    recipe, split = context.recipe, context.data.split(context.loaded, "tuning")

    def infer(images: np.ndarray[Any, np.dtype[np.uint8]]) -> Answer:
        return [tensor.numpy() for tensor in module(torch.from_numpy(images))[:answers]]

    with torch.inference_mode():
        size = recipe.qualify.evaluate_batch_size
        return point_value(evaluate(infer, split, recipe.task, len(recipe.labels), size))


def calibration_images(context: StepContext, count: int) -> Tensor:
    """Returns images (n, height, width, 3) uint8 of the calibration split. Raises DataRefused."""
    calibration = calibration_split(context.data, context.loaded)
    return torch.from_numpy(np.ascontiguousarray(calibration.images[:count]))


def recovered(
    context: StepContext,
    student: TracedNetwork,
    teacher: fx.GraphModule,
    masks: Mapping[str, Tensor],
    spec: RecoverySpec,
) -> tuple[Recovered, Document]:
    """Trains `student` in place to answer like `teacher`; returns the best weights and a JSON document about it."""
    context.note("recovery" if spec.steps else "no recovery: the recipe asks for none")
    learned_from = _lesson(context, student, spec)
    found = recover(
        student.module,
        teacher,
        masks,
        learned_from,
        spec,
        student.first_raw,
        lambda module: _metric_of(module, student.answers, context),
        context.note,
    )
    document: Document = {
        "spec": spec.model_dump(),
        "images": len(learned_from.images),
        "history": [asdict(point) for point in found.history],
    }
    return found, document


def _lesson(context: StepContext, network: TracedNetwork, spec: RecoverySpec) -> Lesson:
    """Returns the `train` split, or the calibration images without one; both are disjoint from the measured splits."""
    split = context.data.split(context.loaded, "train" if has_split(context.loaded, "train") else "calibration")
    others = [context.data.split(context.loaded, "tuning"), context.data.split(context.loaded, "test")]
    ensure_calibration_allowed(split, others, min(len(split.image_sha256), 8))
    return Lesson(split.images, _class_ids(split, context, spec), network.meaning)


def ensure_function_kept(before: Sequence[Tensor], after: Sequence[Tensor], what: str) -> float:
    """Returns the worst relative L2 of raw outputs. Raises GraphError above 1e-5."""
    errors = [relative_l2(found, wanted) for found, wanted in zip(after, before, strict=True)]
    worst = max(errors, default=0.0)
    if not worst <= MAX_PROOF_ERROR:
        raise GraphError(
            f"{what} changed the network's outputs by {worst:.1e} (relative L2, allowed {MAX_PROOF_ERROR:g})"
        )
    return worst


def save_form(program: Any, wrapped: Artifact, out: Path) -> None:
    """Writes the program in the files that `wrap` writes, with the facts that `wrap` found."""
    for path in wrapped.directory.iterdir():
        if path.name not in (DEPLOY_FILE, _RECORD):
            shutil.copyfile(path, out / path.name)
    torch.export.save(program, out / DEPLOY_FILE)


def with_weights(program: Any, weights: Mapping[str, Tensor]) -> None:
    """Writes the given values into the program's parameters and constants."""
    known = {**program.state_dict, **program.constants}
    with torch.no_grad():
        for name, tensor in weights.items():
            if name in known:
                known[name].copy_(tensor)


def used_weights(module: fx.GraphModule) -> dict[str, Tensor]:
    """Returns the parameters and buffers that some operator reads; those of training-only heads are left out."""
    names = {str(node.target) for node in module.graph.nodes if node.op == "get_attr" and node.users}
    return {name: tensor.detach() for name, tensor in module.state_dict().items() if name in names}


def _meaning(context: StepContext, facts: Mapping[str, object]) -> Meaning:
    if facts["scores_output"] == "network_1":
        return "scored_boxes"
    task = context.recipe.task
    return "numbers" if task.task.has_boxes or task.multi_label else "distribution"


def _class_ids(
    split: ImageSplit, context: StepContext, spec: RecoverySpec
) -> np.ndarray[Any, np.dtype[np.int64]] | None:
    if spec.labels_share == 0.0:
        return None
    if context.recipe.task.task is not Task.CLASSIFY or context.recipe.task.multi_label:
        raise RecipeError(
            "recovery.labels_share: only classifiers of one label per picture learn from labels here; leave it at 0 "
            "for the teacher"
        )
    samples = [sample for sample in split.samples if isinstance(sample, ClassSample)]
    if not all(sample.is_labelled for sample in samples):
        raise RecipeError("recovery.labels_share: these pictures have no labels; leave it at 0 for the teacher")
    return np.array([sample.class_id for sample in samples], np.int64)
