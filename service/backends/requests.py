"""What a backend needs to open a variant, from its manifest. Promises: every digest the manifest lists goes along."""

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
    """For the variant called `name`; `batch_sizes` other than all that the manifest allows. Raises BackendError."""
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
        != "fp8",  # as its figures were measured, see export/qualification/serving.py
        allowed_batch_sizes=manifest.allowed_batch_sizes if batch_sizes is None else batch_sizes,
    )


def for_plan(request: LoadRequest, plan_dir: Path, plan_sha256: str | None) -> LoadRequest:
    """The same variant as a TensorRT plan; `plan_sha256` is None only where the plan is still to be measured."""
    return replace(request, plan_dir=plan_dir, plan_sha256=plan_sha256)


def variant_named(manifest: Manifest, name: str) -> Variant:
    """Raises BackendError naming those there are."""
    found = manifest.variant(name)
    if found is None:
        known = ", ".join(variant.name for variant in manifest.variants)
        raise BackendError(f"the manifest has no variant {name!r}; {manifest.model}/{manifest.version} has {known}")
    return found
