"""Step `wrap`: the deploy module. Promises: uint8 NHWC in, final answers out, normalisation folded with proof."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import torch
from torch import Tensor, nn

from export.answer_heads import ClassifyHead, DetectHead, SegmentHead
from export.artifact import Detail
from export.errors import SourceError
from export.normalisation import FoldedNetwork, flat_outputs, fold_normalisation
from export.recipe import Recipe
from export.sources import load_network
from export.steps import StepContext
from models.specs import Task, input_tensor, output_tensors

DEPLOY_FILE = "deploy.pt2"
FACTS_FILE = "wrap.json"
_EXAMPLE_BATCH = 2  # torch.export would take a batch of one for a constant


class DeployModule(nn.Module):
    """Answers, followed by the network's raw outputs so that later steps know where the network ends."""

    def __init__(self, network: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.head = head

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """images (n, height, width, 3) uint8."""
        # Transposing bytes moves a quarter of the memory that transposing floats would. `contiguous` keeps torch from
        # tracing its channels-last special cases; it leaves nothing behind in the ONNX graph.
        pixels = images.permute(0, 3, 1, 2).contiguous().to(torch.float32)
        raw = self.network(pixels)
        return (*self.head(raw), *flat_outputs(raw))


def run_wrap(context: StepContext) -> Detail:
    """Writes the traced deploy module and what is known about it."""
    recipe = context.recipe
    with torch.no_grad():
        network = load_network(context.loaded.network_request()).module
        folded = fold_normalisation(network, recipe.normalisation, recipe.preprocess.height, recipe.preprocess.width)
        module = DeployModule(folded.network, _answer_head(folded, recipe)).eval()
        example = torch.zeros(_EXAMPLE_BATCH, *input_tensor(recipe.preprocess).shape, dtype=torch.uint8)
        names = output_names(recipe, module(example))
        batch = torch.export.Dim("batch", min=1, max=max(1024, recipe.allowed_batch_sizes[-1]))
        program = torch.export.export(module, (example,), dynamic_shapes=({0: batch},), strict=False)
    torch.export.save(program, context.out / DEPLOY_FILE)
    facts: dict[str, str | float | int | bool] = {
        "normalisation": folded.method,
        "normalisation_relative_error": folded.relative_error,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "output_names": ",".join(names),
    }
    (context.out / FACTS_FILE).write_bytes(orjson.dumps(facts, option=orjson.OPT_INDENT_2))
    return facts


def output_names(recipe: Recipe, outputs: Sequence[Tensor]) -> tuple[str, ...]:
    """The contract's answer names, then one name per raw network output. Raises SourceError on a wrong answer."""
    specs = output_tensors(recipe.task, recipe.preprocess)
    for spec, tensor in zip(specs, outputs, strict=False):
        found = (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape[1:]))
        if found != (spec.dtype, spec.shape):
            raise SourceError(f"answer {spec.name!r} is {found}, the task asks for {(spec.dtype, spec.shape)}")
    answers = tuple(spec.name for spec in specs)
    return answers + tuple(f"network_{index}" for index in range(len(outputs) - len(answers)))


def read_wrap_facts(artifact_dir: Path) -> dict[str, str | float | int | bool]:
    facts: dict[str, str | float | int | bool] = orjson.loads((artifact_dir / FACTS_FILE).read_bytes())
    return facts


def load_deploy_program(artifact_dir: Path) -> Any:
    """The traced module that `wrap` wrote (torch.export.ExportedProgram)."""
    return torch.export.load(artifact_dir / DEPLOY_FILE)


def _answer_head(folded: FoldedNetwork, recipe: Recipe) -> nn.Module:
    height, width = recipe.preprocess.height, recipe.preprocess.width
    match recipe.task.task:
        case Task.CLASSIFY:
            return ClassifyHead(recipe.task.top_k)
        case Task.DETECT:
            return DetectHead(recipe.task.max_detections)
        case Task.SEGMENT:
            raw = flat_outputs(folded.network(torch.zeros(1, 3, height, width)))[0]
            return SegmentHead((raw.shape[2], raw.shape[3]), (height, width))
