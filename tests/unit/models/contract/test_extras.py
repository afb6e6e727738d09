"""Outputs that are computed only when asked for: what a manifest may say of them."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from saccade.models.contract.extras import ALL_KINDS, ExtraKind, ExtraOutput, asked_for, mask_of
from saccade.models.contract.manifest import Manifest, manifest_bytes, manifest_from_bytes
from saccade.models.contract.specs import TensorSpec
from tests.support.versions import EXPLANATION, manifest_for, with_extras

TRUST = ExtraOutput(
    kind=ExtraKind.TRUST, output=TensorSpec(name="trust", dtype="float32", shape=()), method="mahalanobis"
)


def validated(manifest: Manifest) -> Manifest:
    return manifest_from_bytes(manifest_bytes(manifest))


def test_a_manifest_keeps_what_its_variants_give() -> None:
    assert validated(with_extras(manifest_for("digits", 1), EXPLANATION, TRUST)).extras == (EXPLANATION, TRUST)
    assert validated(manifest_for("digits", 1)).extras == ()
    assert b"extras" not in manifest_bytes(manifest_for("digits", 1))  # older servers refuse unknown fields


def test_what_one_variant_gives_is_what_the_version_knows() -> None:
    manifest = manifest_for("digits", 1)
    (variant,) = manifest.variants
    other = variant.model_copy(update={"name": "int8-cpu", "precision": "int8", "extras": (TRUST,)})
    both = manifest.model_copy(update={"variants": (variant.model_copy(update={"extras": (EXPLANATION,)}), other)})
    assert validated(both).extras == (EXPLANATION, TRUST)


@pytest.mark.parametrize(
    ("extras", "fault"),
    [
        ((EXPLANATION, EXPLANATION), "repeat"),
        ((TRUST, EXPLANATION), "out of order"),
        ((EXPLANATION.model_copy(update={"output": TRUST.output.model_copy(update={"name": "scores"})}),), "already"),
    ],
)
def test_faulty_extra_outputs_are_refused(extras: tuple[ExtraOutput, ...], fault: str) -> None:
    with pytest.raises(Exception, match=fault):
        validated(with_extras(manifest_for("digits", 1), *extras))


def test_of_maps_that_differ_the_version_gives_the_first_variants() -> None:
    manifest = with_extras(manifest_for("digits", 1), EXPLANATION)
    (variant,) = manifest.variants
    larger = EXPLANATION.model_copy(update={"output": TensorSpec(name="explanation", dtype="float32", shape=(8, 8))})
    other = variant.model_copy(update={"name": "int8-cpu", "precision": "int8", "extras": (larger, TRUST)})
    both = validated(manifest.model_copy(update={"variants": (variant, other)}))
    assert both.extras == (EXPLANATION, TRUST)
    assert [both.given_by(each) for each in both.variants] == [(EXPLANATION,), (TRUST,)]


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValidationError):
        ExtraOutput.model_validate({**EXPLANATION.model_dump(), "kind": "mood"})


def test_masks_name_kinds() -> None:
    assert mask_of((EXPLANATION, TRUST)) == ALL_KINDS == 3
    assert asked_for((EXPLANATION, TRUST), ExtraKind.TRUST.bit) == (TRUST,)
    assert asked_for((EXPLANATION, TRUST), 0) == ()
