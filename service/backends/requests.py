"""Makes the load request of a variant from its manifest, with every digest that the manifest lists."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from saccade.models.contract.manifest import Manifest, Variant
from saccade.service.backends.base import LoadRequest
from saccade.service.errors import BackendError


def load_request(
    version_dir: Path,
    manifest: Manifest,
    name: str,
    *,
    device: str,
    threads: int,
    allow_spinning: bool = False,
    batch_sizes: tuple[int, ...] | None = None,
) -> LoadRequest:
    """The request for variant `name`. `batch_sizes` default to all that the manifest allows. Raises BackendError."""
    variant = variant_named(manifest, name)
    digests = {entry.path: entry.sha256 for entry in manifest.files}
    return LoadRequest(
        file=version_dir / variant.file,
        input=manifest.input,
        outputs=manifest.answer,
        device=device,
        threads=threads,
        allow_spinning=allow_spinning,
        sha256=digests[variant.file],
        external_data=tuple((version_dir / file, digests[file]) for file in variant.external_data),
        precision=variant.precision,
        merges_dequantized=variant.precision
        != "fp8",  # its figures were measured so, see export/qualification/serving.py
        allowed_batch_sizes=manifest.allowed_batch_sizes if batch_sizes is None else batch_sizes,
        extras=variant.extras,
    )


def for_plan(request: LoadRequest, plan_dir: Path, plan_sha256: str | None) -> LoadRequest:
    """The request for the same variant as a TensorRT plan. Only a plan that is still to be measured has no digest."""
    return replace(request, plan_dir=plan_dir, plan_sha256=plan_sha256)


def variant_named(manifest: Manifest, name: str) -> Variant:
    """The variant called `name`. Raises BackendError listing the variants there are."""
    found = manifest.variant(name)
    if found is None:
        known = ", ".join(variant.name for variant in manifest.variants)
        raise BackendError(f"the manifest has no variant {name!r}; {manifest.model}/{manifest.version} has {known}")
    return found
