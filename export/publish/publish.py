"""Step `publish`: writes the version directory without denied variants, with every file hashed.

A pending variant is published with what it waits for: no server chooses it, and a device can settle it later.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from saccade.export.artifact import Artifact, Detail, file_sha256
from saccade.export.convert.batching import not_batchable_reason
from saccade.export.convert.wrap import read_extra_outputs
from saccade.export.errors import PublishError
from saccade.export.gate.decision import verdict
from saccade.export.gate.judge import weights_identity
from saccade.export.gate.judged_variants import ensure_judged_by_recipe
from saccade.export.graph.onnx_graph import MODEL_FILE
from saccade.export.plans.targets import read_targets
from saccade.export.publish.evidence_pack import EVIDENCE_FILE, images_within, write_evidence
from saccade.export.publish.repository import add_version, next_version, readable_manifests
from saccade.export.publish.samples import write_samples
from saccade.export.publish.signing import Signer, sign_version
from saccade.export.qualification.reference import read_reference, reference_answers
from saccade.export.qualification.serving import open_backend
from saccade.export.reports.export_report import REPORT_JSON, ExportReport, VariantReport, read_report
from saccade.export.sources.specs import source_name
from saccade.export.steps import StepContext, qualified_name
from saccade.export.variants import TRAITS, VariantKind
from saccade.models.contract.manifest import (
    MANIFEST_NAME,
    FileEntry,
    Lineage,
    Manifest,
    Variant,
    manifest_bytes,
)
from saccade.models.contract.replay import MOST_PICTURES, REPLAY_FILE, picture_count, replay_bytes
from saccade.models.contract.specs import input_tensor, output_tensors
from saccade.service import __version__
from saccade.service.repository.object_store.address import url_of
from saccade.service.repository.signature import SIGNATURE_NAME, claimed_key_id, sign_manifest

LABELS_FILE = "labels.txt"
_SPARSITY = {"dense": "dense", "sparse24": "two_four", "pruned": "dense"}


def run_publish(context: StepContext) -> Detail:
    """Adds a version to the repository, or finds that the newest equal one is already there."""
    judged = context.inputs["gate"]
    report = read_report(judged.file(REPORT_JSON))
    ensure_judged_by_recipe(context, report)
    published = [variant for variant in report.variants if verdict(variant.gate) != "denied"]
    if not any(variant.gate.accepted for variant in published):
        raise PublishError(
            f"no variant of {report.model} passed the gate, and pending ones alone cannot be served; "
            f"see {judged.file('report.md')}"
        )
    url = url_of(context.repository)
    publication = (
        _published_in_directory(context, report, published)
        if url is None
        else _published_in_store(context, report, published, url)
    )
    return {
        "version": publication.number,
        "is_new": publication.is_new,
        "path": publication.path,
        "variants": ", ".join(variant.qualify.variant for variant in published if variant.gate.accepted),
        "pending": ", ".join(variant.qualify.variant for variant in published if variant.gate.is_pending),
        "signed_by": publication.signed_by or "unsigned",
    }


@dataclass(frozen=True, slots=True)
class _Publication:
    number: int
    is_new: bool
    path: str
    signed_by: str | None


def _published_in_directory(context: StepContext, report: ExportReport, published: list[VariantReport]) -> _Publication:
    model_dir = context.repository / report.model
    with next_version(model_dir) as scratch:
        # Before the version: nothing is written once it is live, so that a full disk leaves no half of a publication.
        write_samples(context.repository, context.recipe, context.data.split(context.loaded, "test"))
        manifest = _filled(scratch, context, report, published)
        existing = _equal_version(context.repository, manifest(1))
        number = existing or add_version(
            model_dir, scratch, lambda number: write_manifest(scratch, manifest(number), context.signer)
        )
    version_dir = model_dir / str(number)
    if context.signer is not None and existing is not None:
        sign_version(version_dir, context.signer)
    return _Publication(number, existing is None, str(version_dir), claimed_key_id(version_dir))


def _published_in_store(
    context: StepContext, report: ExportReport, published: list[VariantReport], url: str
) -> _Publication:
    # Imported here: a repository in a directory needs nothing of object stores.
    from saccade.export.publish.stored_repository import StoredRepository

    store = StoredRepository(url)
    with store.scratch() as samples, store.scratch() as scratch:
        write_samples(samples, context.recipe, context.data.split(context.loaded, "test"))
        manifest = _filled(scratch, context, report, published)
        existing = _equal_version(context.repository, manifest(1))
        store.add_samples(samples)
        if existing is not None:
            signed_by = store.key_id(report.model, existing, context.signer)
            return _Publication(existing, False, store.path(report.model, existing), signed_by)
        number = store.add_version(
            report.model, scratch, lambda number: write_manifest(scratch, manifest(number), context.signer)
        )
        return _Publication(number, True, store.path(report.model, number), claimed_key_id(scratch))


def _filled(
    scratch: Path, context: StepContext, report: ExportReport, published: list[VariantReport]
) -> Callable[[int], Manifest]:
    """Writes all files but the manifest, and returns the manifest by the version's number."""
    _fill(scratch, context, report, published)
    files = file_entries(scratch)
    return lambda number: _manifest(context, report, published, files, number)


def publication_identity(manifest: Manifest) -> tuple[object, ...]:
    """Returns what makes two versions equal: bytes, contract and lineage, but not times and timings."""
    return (
        manifest.source,
        manifest.weights,
        manifest.task,
        manifest.labels,
        manifest.preprocess,
        manifest.normalisation,
        manifest.allowed_batch_sizes,
        tuple(
            (variant.name, *(_sha256_of(manifest, file) for file in (variant.file, *variant.external_data)))
            for variant in manifest.variants
        ),
        manifest.lineage,
    )


def _equal_version(repository: Path, manifest: Manifest) -> int | None:
    identity = publication_identity(manifest)
    for existing in reversed(readable_manifests(repository, manifest.model)):
        if publication_identity(existing) == identity:
            return existing.version
    return None


def _fill(scratch: Path, context: StepContext, report: ExportReport, published: list[VariantReport]) -> None:
    for variant in published:
        source = _made(context, variant).file(MODEL_FILE)
        target = scratch / _published_file(published, variant)
        shutil.copyfile(source, target)
        if file_sha256(target) != variant.qualify.file_sha256:
            raise PublishError(f"{source} changed after it was measured; run qualify again")
        for name, digest in variant.qualify.external_sha256.items():
            shutil.copyfile(source.parent / name, scratch / name)
            if file_sha256(scratch / name) != digest:
                raise PublishError(f"{source.parent / name} changed after it was measured; run qualify again")
    for path in context.inputs["gate"].directory.iterdir():
        if path.name != "step.json":
            shutil.copyfile(path, scratch / path.name)
    _add_evidence(scratch, context, published)
    _add_replay(scratch, context, published)
    _write(scratch / LABELS_FILE, "".join(f"{label}\n" for label in report.labels).encode())


def _published_file(published: list[VariantReport], variant: VariantReport) -> str:
    """The name of the file: that of the first variant with the same bytes, which is stored once."""
    mine = (variant.qualify.file_sha256, variant.qualify.external_sha256)
    same = (each.qualify for each in published if (each.qualify.file_sha256, each.qualify.external_sha256) == mine)
    return f"{next(same).variant}.onnx"


def _add_evidence(scratch: Path, context: StepContext, published: list[VariantReport]) -> None:
    """Adds test images, because a plan is built where it is served, and measured there before it takes traffic."""
    if not any(TRAITS[_kind(context, variant)].needs_gpu for variant in published):
        return
    split = context.data.split(context.loaded, "test")
    count = images_within(split.samples, context.recipe.qualify.evidence_mib)
    if count:
        write_evidence(
            scratch / EVIDENCE_FILE, split, reference_answers(context.inputs["reference"], context.recipe), count
        )


def _add_replay(scratch: Path, context: StepContext, published: list[VariantReport]) -> None:
    """Adds a few test pictures with each variant's answers, which a server repeats before it serves."""
    images = context.data.split(context.loaded, "test").images[:MOST_PICTURES]
    answers = {}
    for variant in published:
        traits = TRAITS[_kind(context, variant)]
        backend = open_backend(_made(context, variant).file(MODEL_FILE), context.recipe, traits)
        parts = [backend.infer(images[index : index + 1]) for index in range(len(images))]
        backend.close()
        tensors = output_tensors(context.recipe.task, context.recipe.preprocess)
        rows = [part[: len(tensors)] for part in parts]
        answers[variant.qualify.variant] = [np.concatenate(each) for each in zip(*rows, strict=True)]
    size = sum(each.nbytes for tensors in answers.values() for each in tensors) + images.nbytes
    count = picture_count(size // len(images))
    kept = {name: [each[:count] for each in tensors] for name, tensors in answers.items()}
    _write(scratch / REPLAY_FILE, replay_bytes(images[:count], kept))


def _manifest(
    context: StepContext,
    report: ExportReport,
    published: list[VariantReport],
    files: tuple[FileEntry, ...],
    number: int,
) -> Manifest:
    recipe = context.recipe
    reason = not_batchable_reason(context.inputs)
    reference = read_reference(context.inputs["reference"])
    return Manifest(
        model=recipe.model,
        version=number,
        created=report.created,
        source=source_name(recipe.source),
        weights=weights_identity(context.loaded),
        task=recipe.task,
        labels=recipe.labels,
        preprocess=recipe.preprocess,
        normalisation=recipe.normalisation,
        input=input_tensor(recipe.preprocess),
        outputs=(
            *output_tensors(recipe.task, recipe.preprocess),
            *read_extra_outputs(context.inputs["wrap"].directory),
        ),
        batchable=not reason,
        not_batchable_reason=reason,
        targets=read_targets(context.inputs["targets"]),
        allowed_batch_sizes=recipe.allowed_batch_sizes,
        reference_metric=reference.figure.metric,
        reference_operating_point=reference.operating_point,
        quality=report.quality,
        judged=recipe.gate.mode == "metric",
        variants=tuple(_variant(context, variant, _published_file(published, variant)) for variant in published),
        files=files,
        lineage=_lineage(context),
    )


def _variant(context: StepContext, variant: VariantReport, file: str) -> Variant:
    name = _kind(context, variant)
    traits = TRAITS[name]
    return Variant.model_validate(
        {
            "name": name,
            "precision": traits.precision,
            "sparsity": _SPARSITY[traits.form],
            "target": traits.target,
            "file": file,
            "external_data": tuple(variant.qualify.external_sha256),
            "extras": variant.qualify.extras or (),
            "metric": variant.qualify.metric,
            "operating_point": variant.qualify.operating_point,
            "latency": variant.qualify.latency,
            "paired_speeds": variant.qualify.paired_speeds,
            "measured_on": variant.qualify.measured_on,
            "detail": dict(_made(context, variant).detail),
            "gate": variant.gate,
        }
    )


def _lineage(context: StepContext) -> tuple[Lineage, ...]:
    tool = f"saccade {__version__}"
    return tuple(Lineage(step=name, digest=made.digest, tool=tool) for name, made in context.inputs.items())


def _made(context: StepContext, variant: VariantReport) -> Artifact:
    return context.inputs[qualified_name("precision", _kind(context, variant))]


def _kind(context: StepContext, variant: VariantReport) -> VariantKind:
    names: dict[str, VariantKind] = {name: name for name in context.recipe.variants}
    return names[variant.qualify.variant]


def file_entries(directory: Path) -> tuple[FileEntry, ...]:
    """Lists every file below a directory as a manifest does."""
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    return tuple(
        FileEntry(path=path.relative_to(directory).as_posix(), size_bytes=path.stat().st_size, sha256=file_sha256(path))
        for path in paths
    )


def _sha256_of(manifest: Manifest, file: str) -> str:
    return next(entry.sha256 for entry in manifest.files if entry.path == file)


def write_manifest(scratch: Path, manifest: Manifest, signer: Signer | None) -> None:
    """Writes the manifest with its signature, so that a server that requires one never sees the version without."""
    content = manifest_bytes(manifest)
    _write(scratch / MANIFEST_NAME, content)
    if signer is not None:
        _write(scratch / SIGNATURE_NAME, sign_manifest(content, signer.key))


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
