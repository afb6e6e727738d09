"""Keys of plans. Promises: whatever makes another plan makes another key, place and digest."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from saccade.models.contract.manifest import FileEntry, Manifest
from saccade.models.contract.plans import PlanError, PlanKey, plan_key, plan_record_bytes, plan_record_from
from tests.support.plan_records import key, record
from tests.support.versions import manifest_for


def with_weights_beside(manifest: Manifest) -> Manifest:
    files = [FileEntry(path=name, size_bytes=1, sha256=digit * 64) for name, digit in (("b.bin", "b"), ("a.bin", "a"))]
    variant = manifest.variants[0].model_copy(update={"external_data": ("b.bin", "a.bin"), "sparsity": "two_four"})
    return manifest.model_copy(update={"files": (*manifest.files, *files), "variants": (variant,)})


def test_key_is_made_from_the_published_files_and_what_builds_for_what() -> None:
    manifest = with_weights_beside(manifest_for("digits", 1))

    made = plan_key(manifest, manifest.variants[0], "tensorrt_rtx", "1.7.1.116", ("SM120", "SM80", "SM89"))

    assert made == PlanKey(
        onnx_sha256=manifest.files[0].sha256,
        external_sha256=(("a.bin", "a" * 64), ("b.bin", "b" * 64)),
        runtime="tensorrt_rtx",
        runtime_version="1.7.1.116",
        capabilities=("SM80", "SM89", "SM120"),
        allowed_batch_sizes=(1, 2, 4, 8),
        flags=("sparse_weights",),
    )


def test_dense_variant_asks_for_no_sparse_kernels() -> None:
    manifest = manifest_for("digits", 1)

    assert plan_key(manifest, manifest.variants[0], "tensorrt", "10.16.1", ("SM90",)).flags == ()


@pytest.mark.parametrize(
    "change",
    [
        {"onnx_sha256": "b" * 64},
        {"external_sha256": (("weights", "c" * 64),)},
        {"runtime": "tensorrt"},
        {"runtime_version": "1.7.1.117"},
        {"capabilities": ("SM90",)},
        {"capabilities": ("SM89", "SM90")},
        {"allowed_batch_sizes": (1, 2, 4, 8)},
        {"flags": ("sparse_weights",)},
    ],
)
def test_any_difference_makes_another_place(change: dict[str, object]) -> None:
    assert key(**change).digest != key().digest
    assert key(**change).place != key().place


@pytest.mark.parametrize("name", ["sm90", "H200", "SM9", "../SM90"])
def test_unknown_form_of_a_capability_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="capabilities"):
        key(capabilities=(name,))


def test_record_is_read_back_as_it_was_written() -> None:
    assert plan_record_from(plan_record_bytes(record())) == record()


def test_record_of_a_newer_saccade_is_refused_by_its_schema() -> None:
    with pytest.raises(PlanError, match="schema_version 2, this saccade reads 1"):
        plan_record_from(b'{"schema_version": 2, "novelty": true}')
