"""Step `wrap`: makes the deploy module, which takes uint8 NHWC images and returns final answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from saccade.export.artifact import Detail
from saccade.export.convert.answer_heads import RAW_TENSORS, answer_head
from saccade.export.convert.batching import MARGIN
from saccade.export.convert.normalisation import FoldedNetwork, flat_outputs, fold_normalisation
from saccade.export.convert.padding import padded_network
from saccade.export.convert.tile_margin import tile_margin
from saccade.export.convert.trace import Trace, traced
from saccade.export.errors import SourceError
from saccade.export.network import FORMS_BY_TASK, Network
from saccade.export.recipe import Recipe
from saccade.export.sources import load_network
from saccade.export.steps import StepContext
from saccade.models.contract.specs import Task, TensorSpec, input_tensor, output_tensors

DEPLOY_FILE = "deploy.pt2"
FACTS_FILE = "wrap.json"
EXTRA_OUTPUTS_FILE = "extra_outputs.json"
FOLDS_FILE = "folds.json"


class DeployModule(nn.Module):
    """Returns answers, extra named outputs, and the raw outputs that tell later steps where the network ends."""

    def __init__(self, network: nn.Module, head: nn.Module, ends: range, extras: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.network = network
        self.head = head
        self.ends = ends  # positions among the network's outputs
        self.extras = extras  # positions too, in the order of the recipe

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Takes images (n, height, width, 3) uint8."""
        # Transposing bytes moves a quarter of the memory that transposing floats would. `contiguous` keeps torch from
        # tracing its channels-last special cases; it leaves nothing behind in the ONNX graph.
        pixels = images.permute(0, 3, 1, 2).contiguous().to(torch.float32)
        raw = flat_outputs(self.network(pixels))
        # A tensor that is two outputs of a graph needs two names.
        extras = [raw[position].clone() for position in self.extras]
        return (*self.head(raw), *extras, *(raw[position] for position in self.ends))


@dataclass(frozen=True, slots=True)
class Deployable:
    """A network with folds, normalisation and answer head, before tracing."""

    module: DeployModule
    folded: FoldedNetwork
    folds: tuple[dict[str, Any], ...]  # one per layer fold, with its proof
    parameters: int
    scores_output: str  # the name among `network_i` of detection scores in 0..1; empty: none
    not_batchable_reason: str


def run_wrap(context: StepContext) -> Detail:
    """Writes the traced deploy module and the facts about it."""
    recipe = context.recipe
    with torch.no_grad():
        deployable = deployable_network(load_network(context.loaded.network_request()), recipe)
        margin = _margin(deployable, recipe)
        trace = traced(deployable.module, _example_images(recipe), deployable.not_batchable_reason)
    torch.export.save(trace.program, context.out / DEPLOY_FILE)
    extras = _extra_outputs(recipe, trace.outputs)
    (context.out / EXTRA_OUTPUTS_FILE).write_bytes(orjson.dumps([extra.model_dump() for extra in extras]))
    (context.out / FOLDS_FILE).write_bytes(orjson.dumps(deployable.folds, option=orjson.OPT_INDENT_2))
    facts = _facts(deployable, trace, recipe) | ({} if margin is None else {MARGIN: margin})
    if context.loaded.quantized:
        facts["quantized"] = context.loaded.quantized
    (context.out / FACTS_FILE).write_bytes(orjson.dumps(facts, option=orjson.OPT_INDENT_2))
    return facts


def deployable_network(network: Network, recipe: Recipe) -> Deployable:
    """Folds, normalises and adds a head; the result contains `network.module`, which may change.

    Raises SourceError when the network is not what the recipe's task needs, GraphError when a fold is not exact.
    """
    preprocess = recipe.preprocess
    if (network.form == "pixels") != (recipe.task.task is Task.IMAGE):
        raise SourceError(
            f"source: {type(network.module).__name__} gives {network.form}, and task: {recipe.task.task} needs "
            f"{' or '.join(FORMS_BY_TASK[recipe.task.task])}"
        )
    module, folds = _folded_layers(network, recipe)
    parameters = sum(parameter.numel() for parameter in module.parameters()) + _parameters_in_files(module)
    if network.zero_bars or network.takes_padding_mask:
        folded = padded_network(network, module, recipe.normalisation, preprocess)
    else:
        folded = fold_normalisation(module, recipe.normalisation, preprocess.height, preprocess.width)
    raw = folded.network(torch.zeros(1, 3, preprocess.height, preprocess.width))
    _ensure_scale(flat_outputs(raw)[0], recipe)
    head = answer_head(network, recipe.task, len(recipe.labels), preprocess, raw)
    extras = tuple(_position(network, name) for name in recipe.extra_outputs)
    deploy = DeployModule(folded.network, head, _ends(network), extras).eval()
    scores = "network_1" if network.form in ("boxes", "candidates") and not network.dense_outputs else ""
    return Deployable(deploy, folded, folds, parameters, scores, network.not_batchable_reason)


def _ensure_scale(raw: Tensor, recipe: Recipe) -> None:
    """Raises SourceError for a picture of another size than the recipe's scale makes."""
    task, spec = recipe.task, recipe.preprocess
    if task.task is not Task.IMAGE or task.picture == "depth":
        return
    height, width = raw.shape[-2:]
    if (width, height) == (spec.width * task.scale, spec.height * task.scale):
        return
    scale = width // spec.width
    is_whole = scale and (width, height) == (spec.width * scale, spec.height * scale)
    raise SourceError(
        f"task.scale is {task.scale}, and the network makes {width}x{height} of {spec.width}x{spec.height}: "
        + (f"write `scale: {scale}`" if is_whole else "no scale of whole pixels fits; try another width and height")
    )


def _margin(deployable: Deployable, recipe: Recipe) -> int | None:
    """Returns how tiles must overlap; None without tiles. Raises SourceError where no tile of the size would do."""
    spec = recipe.preprocess
    if spec.fit != "tile":
        return None

    def answer(images: NDArray[np.uint8]) -> NDArray[Any]:
        found: NDArray[Any] = deployable.module(torch.from_numpy(images))[0].numpy()
        return found

    is_depth = recipe.task.picture == "depth"
    measured = tile_margin(answer, spec.width, spec.height, recipe.task.scale, is_depth=is_depth)
    if 4 * measured > min(spec.width, spec.height):
        raise SourceError(
            f"preprocess: tiles of {spec.width}x{spec.height} would show seams: what lies beyond their border, or "
            f"where in them a pixel lies, changes answers {measured} pixels inside. Write a width and height of "
            f"{4 * measured} or more; or, where every pixel depends on the whole picture, `fit: stretch`, which "
            "resizes pictures"
        )
    if spec.margin is not None and spec.margin < measured:
        raise SourceError(
            f"preprocess.margin is {spec.margin}, and what lies beyond a tile's border changes answers {measured} "
            "pixels inside: leave it out"
        )
    return measured if spec.margin is None else spec.margin


def output_names(recipe: Recipe, outputs: Sequence[Tensor]) -> tuple[str, ...]:
    """Returns the answer's names, the extra outputs', then one name per raw network output.

    Raises SourceError on a wrong answer.
    """
    specs = output_tensors(recipe.task, recipe.preprocess)
    for spec, tensor in zip(specs, outputs, strict=False):
        found = (_dtype(tensor), tuple(tensor.shape[1:]))
        if found != (spec.dtype, spec.shape):
            raise SourceError(f"answer {spec.name!r} is {found}, the task asks for {(spec.dtype, spec.shape)}")
    named = (*(spec.name for spec in specs), *recipe.extra_outputs)
    return named + tuple(f"network_{index}" for index in range(len(outputs) - len(named)))


def read_wrap_facts(artifact_dir: Path) -> dict[str, str | float | int | bool]:
    facts: dict[str, str | float | int | bool] = orjson.loads((artifact_dir / FACTS_FILE).read_bytes())
    return facts


def read_extra_outputs(artifact_dir: Path) -> tuple[TensorSpec, ...]:
    """Returns the outputs behind the answer, in graph order."""
    document = orjson.loads((artifact_dir / EXTRA_OUTPUTS_FILE).read_bytes())
    return tuple(TensorSpec.model_validate(extra) for extra in document)


def read_folds(artifact_dir: Path) -> list[dict[str, Any]]:
    """Returns one row per layer fold, with its proof."""
    folds: list[dict[str, Any]] = orjson.loads((artifact_dir / FOLDS_FILE).read_bytes())
    return folds


def load_deploy_program(artifact_dir: Path) -> Any:
    """Loads the traced module that `wrap` wrote (torch.export.ExportedProgram)."""
    return torch.export.load(artifact_dir / DEPLOY_FILE)


def _folded_layers(network: Network, recipe: Recipe) -> tuple[nn.Module, tuple[dict[str, Any], ...]]:
    # imported here because it imports timm, which takes seconds
    from saccade.export.convert.folding import fold_network

    example = torch.zeros(1, 3, recipe.preprocess.height, recipe.preprocess.width)
    result = fold_network(network.module, recipe.folding, example)
    return result.module, tuple(asdict(proof) for proof in result.proofs)


def _parameters_in_files(module: nn.Module) -> int:
    """Counts the parameters of the parts that are files, which torch does not see."""
    return sum(int(getattr(part, "parameter_count", 0)) for part in module.modules())


def _ends(network: Network) -> range:
    """Returns the positions of the outputs that mark the network's end."""
    form_tensors = RAW_TENSORS[network.form]
    if not network.dense_outputs:
        return range(form_tensors)
    start = form_tensors + len(network.extra_outputs)
    return range(start, start + network.dense_outputs)


def _position(network: Network, name: str) -> int:
    """Returns the position of an extra output among the network's. Raises SourceError when it is missing."""
    if name in network.extra_outputs:
        return RAW_TENSORS[network.form] + network.extra_outputs.index(name)
    if name == "logits" and network.form in ("logits", "dense_logits"):
        return 0
    raise SourceError(
        f"extra_outputs: {type(network.module).__name__} has no {name!r} output; leave it out of the recipe"
    )


def _example_images(recipe: Recipe) -> Tensor:
    return torch.zeros(1, *input_tensor(recipe.preprocess).shape, dtype=torch.uint8)


def _extra_outputs(recipe: Recipe, outputs: Sequence[Tensor]) -> tuple[TensorSpec, ...]:
    start = len(output_tensors(recipe.task, recipe.preprocess))
    tensors = outputs[start : start + len(recipe.extra_outputs)]
    return tuple(
        TensorSpec.model_validate({"name": name, "dtype": _dtype(tensor), "shape": tuple(tensor.shape[1:])})
        for name, tensor in zip(recipe.extra_outputs, tensors, strict=True)
    )


def _facts(deployable: Deployable, trace: Trace, recipe: Recipe) -> dict[str, str | float | int | bool]:
    return {
        "normalisation": deployable.folded.method,
        "normalisation_relative_error": deployable.folded.relative_error,
        "folds": len(deployable.folds),
        "folds_relative_error": max((float(fold["relative_error"]) for fold in deployable.folds), default=0.0),
        "parameters": deployable.parameters,
        "output_names": ",".join(output_names(recipe, trace.outputs)),
        "extra_outputs": ",".join(recipe.extra_outputs),
        "scores_output": deployable.scores_output,
        "batchable": not trace.not_batchable_reason,
        "not_batchable_reason": trace.not_batchable_reason,
    }


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
