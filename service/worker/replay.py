"""Repeats the version's recorded pictures on this machine before it serves, and compares the answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.models.contract.manifest import Manifest
from saccade.models.contract.replay import (
    REPLAY_FILE,
    ReplayDamaged,
    largest_difference,
    read_replay,
    tolerance,
)
from saccade.service.backends.base import Outputs, UInt8Array
from saccade.service.errors import BackendError
from saccade.service.repository.verify import verified_bytes

_MOST_BYTES = 64 * 1024 * 1024  # far above what the exporter writes


def replay(infer: Callable[[UInt8Array], Outputs], version_dir: Path, manifest: Manifest, variant: str) -> None:
    """Runs each recorded picture alone. Raises BackendError where the answers differ from the recorded ones.

    A version that was published without recorded pictures is not checked.
    """
    entry = next((entry for entry in manifest.files if entry.path == REPLAY_FILE), None)
    found = manifest.variant(variant)
    if entry is None or found is None:
        return
    if entry.size_bytes > _MOST_BYTES:
        raise BackendError(f"{REPLAY_FILE} has {entry.size_bytes} bytes, allowed are {_MOST_BYTES}")
    try:
        images, expected = read_replay(verified_bytes(version_dir / REPLAY_FILE, entry.sha256), variant)
    except ReplayDamaged as error:
        raise BackendError(str(error)) from error
    if not expected:
        return
    answers = [infer(images[index : index + 1]) for index in range(len(images))]
    joined: list[NDArray[Any]] = [np.concatenate(tensors) for tensors in zip(*answers, strict=True)]
    difference = largest_difference(joined[: len(expected)], expected, manifest.task.task)
    limit = tolerance(found.precision)
    if not difference <= limit:
        raise BackendError(
            f"its answers to {len(images)} recorded pictures differ here by {difference:.3g}, allowed for "
            f"{found.precision} is {limit:g}: this runtime or machine computes it wrongly; choose another variant"
        )
