"""Builds the plans that `make bench-gpu` times and serves. Promises: by the product's builder, kept in its own store.

A plan that is there already is used again, so a benchmark in several calls builds each plan once.
"""

from __future__ import annotations

import importlib
from dataclasses import asdict
from pathlib import Path

from saccade.models.contract.manifest import Manifest, Variant
from saccade.service.repository.plans import PlanStore, StoredPlan
from saccade.service.repository.verify import VerifiedVersion, verify_version
from tests.load.gpu_publish import NOT_GATED


class PlanNotBuilt(Exception):
    """There is nothing to build; the message says why."""


def built_plan(version_dir: Path, variant: str, module: str, capability: str, store: PlanStore) -> StoredPlan:
    """The plan of one variant for a kind of GPU, stored or built now. Raises DeviceError with TensorRT's reason.

    Its record says that no gate judged it: without an answer of a gate no server opens it.
    """
    from saccade.export.plans.version_plans import ensure_plan

    version: VerifiedVersion = verify_version(version_dir)
    found = _variant(version.manifest, variant)
    stored = ensure_plan(version, found, importlib.import_module(module), capability, store).stored
    if stored.record.gate is not None:
        return stored
    return store.update_record(stored, stored.record.model_copy(update={"gate": NOT_GATED}))


def _variant(manifest: Manifest, name: str) -> Variant:
    found = manifest.variant(name)
    if found is None:
        raise PlanNotBuilt(
            f"{manifest.model} has no variant {name!r}; the exporter made {[v.name for v in manifest.variants]}"
        )
    return found


def effective(information: str, file: Path, variant: str) -> dict[str, object]:
    """What the inspector says of an opened plan: share of multiply-adds in the named precision, sparse kernels."""
    import onnx

    from saccade.export.gate.plan_layers import plan_layers, share_in_plan
    from saccade.export.precision.effective_precision import layer_precisions, layers_of_network
    from saccade.export.qualification.qualify_report import LayerFigure
    from saccade.export.variants import TRAITS

    model = onnx.load(file)
    layers = plan_layers(information)
    precision = TRAITS[variant].precision  # type: ignore[index]  # names of the benchmark are names of variants
    figures = [LayerFigure(**asdict(layer)) for layer in layers_of_network(model, layer_precisions(model))]
    share, lost = share_in_plan(layers, figures, precision)
    sparse = [layer for layer in layers if layer.is_sparse]
    return {
        "plan_layers": len(layers),
        "share_in_precision": round(share, 4),
        "unaccounted_layers": len(lost),
        "sparse_kernels": len(sparse),
        "sparse_kernel_names": sorted({layer.tactic for layer in sparse})[:4],
    }
