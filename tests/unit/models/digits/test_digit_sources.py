"""Splits of the digit instances. Promises held here: disjoint, complete, stratified, stable."""

import itertools

import numpy as np
import pytest

from saccade.models.digits.digit_sources import (
    Split,
    digit_instances,
    instance_digests,
    instance_indices,
    photographs,
    split_fingerprint,
)


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(Split, 2)))
def test_no_digit_is_in_two_splits(first: Split, second: Split) -> None:
    assert not set(instance_indices(first).tolist()) & set(instance_indices(second).tolist())
    assert not set(instance_digests(first)) & set(instance_digests(second))  # by content, not only by index


def test_splits_together_hold_every_digit() -> None:
    images, _ = digit_instances()
    everything = np.sort(np.concatenate([instance_indices(split) for split in Split]))
    assert np.array_equal(everything, np.arange(len(images)))


@pytest.mark.parametrize(
    ("split", "share"),
    [(Split.TRAIN, 0.65), (Split.CALIBRATION, 0.06), (Split.TUNING, 0.09), (Split.TEST, 0.20)],
)
def test_every_class_has_its_share_in_each_split(split: Split, share: float) -> None:
    _, classes = digit_instances()
    found = np.bincount(classes[instance_indices(split)], minlength=10) / np.bincount(classes)
    assert np.abs(found - share).max() < 0.01


def test_fingerprints_tell_splits_apart_and_do_not_move() -> None:
    fingerprints = {split: split_fingerprint(split) for split in Split}
    assert len(set(fingerprints.values())) == len(Split)
    # Shipped checkpoints were tested on these digits; a change here makes their figures invalid.
    assert fingerprints[Split.TEST].startswith("e03a5a6c")
    assert fingerprints[Split.TRAIN].startswith("d8d9318f")


def test_test_photographs_are_not_what_training_saw() -> None:
    for trained, tested in zip(photographs(Split.TRAIN), photographs(Split.TEST), strict=True):
        assert trained.shape[1] + tested.shape[1] <= 640
        assert not np.array_equal(trained[:, : tested.shape[1]], tested)
