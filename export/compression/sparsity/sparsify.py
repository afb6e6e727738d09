"""Makes the form `sparse24`: permutes channels, masks weights, recovers accuracy, and checks every layer it claims."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import orjson
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from saccade.export.artifact import Detail
from saccade.export.compression.sparsity.ceiling import sparse_work
from saccade.export.compression.sparsity.channel_groups import channel_groups
from saccade.export.compression.sparsity.eligibility import WeightedLayer, weighted_layers
from saccade.export.compression.sparsity.mask_check import SPARSITY_FILE
from saccade.export.compression.sparsity.masks import has_two_four, kept_magnitude, magnitude_mask, random_mask
from saccade.export.compression.sparsity.permutation import PermutationFigure, permute_channels
from saccade.export.compression.sparsity.second_order import prune_in_order
from saccade.export.compression.threads import one_thread
from saccade.export.compression.traced_network import (
    PROOF_IMAGES,
    Document,
    TracedNetwork,
    calibration_images,
    ensure_function_kept,
    recovered,
    save_form,
    traced_network,
    tuning_metric,
    used_weights,
    with_weights,
)
from saccade.export.errors import GraphError, SourceError
from saccade.export.steps import StepContext

RECOVERED_FILE = "recovered.safetensors"
_METADATA_KEY = "saccade.sparsity"  # key in the safetensors file whose value tells how the weights were made
_OBSERVED_IMAGES = 64


def run_sparsify(context: StepContext) -> Detail:
    """Writes the sparse deploy module, `sparsity.json`, and the weights, which a later run can start from."""
    spec = context.recipe.sparsity
    wrapped = context.inputs["wrap"]
    network = traced_network(wrapped.directory, context)
    layers = weighted_layers(network.module, network.ends, spec)
    if not any(layer.is_eligible for layer in layers):
        reasons = "; ".join(dict.fromkeys(layer.reason for layer in layers))
        raise GraphError(f"no layer can become 2:4 ({reasons}): leave the sparse variants out of the recipe")
    images = calibration_images(context, _OBSERVED_IMAGES)
    _ensure_worthwhile(network, [layer.layer for layer in layers if layer.is_eligible], images, context)
    path = context.loaded.recovered_path
    if path is None:
        document = _make_sparse(context, network, layers, images)
    else:
        document = _load_recovered(path, network, layers)
        document["tuning_metric"] = tuning_metric(network, context)
    weights = used_weights(network.module)
    _ensure_claims(document["claimed"], layers, weights)
    work = sparse_work(network.module, document["claimed"], images[:1])
    document |= {"claimed_share": work.share, "best_possible_gain": work.ceiling}
    with_weights(network.program, weights)
    save_form(network.program, wrapped, context.out)
    text = orjson.dumps(document, option=orjson.OPT_INDENT_2)
    (context.out / SPARSITY_FILE).write_bytes(text)
    save_file(
        {name: tensor.contiguous() for name, tensor in weights.items()},
        context.out / RECOVERED_FILE,
        {_METADATA_KEY: text.decode()},
    )
    return {
        "claimed_layers": len(document["claimed"]),
        "weighted_layers": len(layers),
        "claimed_share": work.share,
        "best_possible_gain": work.ceiling,
        "method": document["method"],
        "tuning_metric": document["tuning_metric"],
        "dense_tuning_metric": document["dense_tuning_metric"],
        "permutation_error": document["permutation_error"],
        "not_batchable_reason": str(wrapped.detail.get("not_batchable_reason", "")),
    }


def _make_sparse(
    context: StepContext, network: TracedNetwork, layers: Sequence[WeightedLayer], images: Tensor
) -> Document:
    spec, module = context.recipe.sparsity, network.module
    eligible = [layer for layer in layers if layer.is_eligible]
    teacher = traced_network(context.inputs["wrap"].directory, context).module
    dense = tuning_metric(network, context)
    original = _snapshot(network)
    table: list[Document] = []

    def trial(method: str, is_permuted: bool, base: dict[str, Tensor]) -> dict[str, Tensor]:
        """Prunes `base` in one shot, measures it, and returns the masks."""
        context.note(f"one-shot: {method}")
        module.load_state_dict(base)
        masks = _pruned(network, eligible, method, images, context)
        figure = {"method": method, "permuted": is_permuted, "tuning_metric": tuning_metric(network, context)}
        table.append(figure)
        return masks

    for method in ("random", "magnitude"):
        trial(method, False, original)
    permuted, figures, error = original, _same_order(original, eligible), 0.0
    if spec.permutation:
        context.note("searching the order of channels")
        with one_thread():
            permuted, figures = permute_channels(
                original, channel_groups(module), [layer.weight for layer in eligible], spec.permutation_budget_s
            )
        before = _raw_of(network, original, images)
        error = ensure_function_kept(before, _raw_of(network, permuted, images), "the permutation of channels")
        trial("magnitude", True, permuted)
    if spec.method != "second_order":
        trial("second_order", spec.permutation, permuted)
    masks = trial(spec.method, spec.permutation, permuted)  # last, because recovery starts from the weights it leaves
    found, recovery = recovered(context, network, teacher, masks, spec.recovery)
    return {
        "method": spec.method,
        "claimed": [] if spec.recovery.dense_steps else [layer.layer for layer in eligible],
        "dense_tuning_metric": dense,
        "tuning_metric": found.tuning_metric,
        "permutation_error": error,
        "one_shot": table,
        "layers": _layer_table(layers, figures),
        "recovery": recovery,
    }


def _pruned(
    network: TracedNetwork, layers: Sequence[WeightedLayer], method: str, images: Tensor, context: StepContext
) -> dict[str, Tensor]:
    """Prunes the module's weights in place and returns the masks."""
    if method == "second_order":
        found = prune_in_order(network.module, layers, images, lambda layer: context.note(f"second order: {layer}"))
        return {name: pruned.mask for name, pruned in found.items()}
    state = network.module.state_dict()
    masks: dict[str, Tensor] = {}
    for index, layer in enumerate(layers):
        weight = state[layer.weight]
        masks[layer.weight] = magnitude_mask(weight) if method == "magnitude" else random_mask(weight, index)
        weight.mul_(masks[layer.weight])
    return masks


def _load_recovered(path: Path, network: TracedNetwork, layers: Sequence[WeightedLayer]) -> Document:
    """Loads the file's weights into the module. Raises SourceError for a file of another network."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # a safetensors file lacks iteration
    except (OSError, SafetensorError) as error:
        raise SourceError(f"sparsity.recovered: cannot read {path}: {error}") from error
    known = used_weights(network.module)
    wrong = sorted(name for name in known.keys() ^ weights.keys()) or sorted(
        name for name, tensor in weights.items() if tensor.shape != known[name].shape
    )
    if wrong or _METADATA_KEY not in metadata:
        what = f"{wrong[0]!r} and {len(wrong) - 1} more do not fit" if wrong else f"it lacks {_METADATA_KEY!r}"
        raise SourceError(
            f"sparsity.recovered: {path} is not a recovery of this network ({what}); make one with "
            "`saccade-export recover RECIPE --out FILE`, or leave the key out"
        )
    network.module.load_state_dict({**network.module.state_dict(), **weights})
    document: Document = orjson.loads(metadata[_METADATA_KEY])
    names = {layer.layer for layer in layers}
    unknown = [name for name in document["claimed"] if name not in names]
    if unknown:
        raise SourceError(f"sparsity.recovered: {path} claims layers that this network does not have: {unknown[0]}")
    return document


def _ensure_worthwhile(network: TracedNetwork, layers: Sequence[str], images: Tensor, context: StepContext) -> None:
    """Raises GraphError when even perfect sparse kernels would miss the gate's limit, before anything is trained."""
    refusal = sparse_work(network.module, layers, images[:1]).refusal(context.recipe.gate.min_sparse_gain)
    if refusal:
        raise GraphError(refusal)


def _ensure_claims(claimed: Sequence[str], layers: Sequence[WeightedLayer], weights: dict[str, Tensor]) -> None:
    """Raises GraphError when a claimed layer is not 2:4."""
    by_name = {layer.layer: layer.weight for layer in layers}
    broken = [name for name in claimed if not has_two_four(weights[by_name[name]])]
    if broken:
        raise GraphError(f"{len(broken)} layers that claim 2:4 are not, the first is {broken[0]}")


def _layer_table(layers: Sequence[WeightedLayer], figures: Sequence[PermutationFigure]) -> list[Document]:
    by_weight = {figure.weight: figure for figure in figures}
    return [
        {
            "layer": layer.layer,
            "shape": list(layer.shape),
            "eligible": layer.is_eligible,
            "reason": layer.reason,
            "kept_magnitude_identity": by_weight[layer.weight].before if layer.is_eligible else None,
            "kept_magnitude_permuted": by_weight[layer.weight].after if layer.is_eligible else None,
        }
        for layer in layers
    ]


def _same_order(state: dict[str, Tensor], layers: Sequence[WeightedLayer]) -> tuple[PermutationFigure, ...]:
    kept = {layer.weight: kept_magnitude(state[layer.weight]) for layer in layers}
    return tuple(PermutationFigure(name, share, share) for name, share in kept.items())


def _raw_of(network: TracedNetwork, state: dict[str, Tensor], images: Tensor) -> list[Tensor]:
    network.module.load_state_dict(state)
    return network.raw(images[:PROOF_IMAGES])


def _snapshot(network: TracedNetwork) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.module.state_dict().items()}
