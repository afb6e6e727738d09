"""A training run on disk, written atomically; loading it runs no code from the file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

STATE_FORMAT = 1


@dataclass(slots=True)
class RunState:
    """Everything a resumed run needs to continue as if it had never stopped."""

    step: int  # optimisation steps done
    seconds: float  # training time so far, over all sittings
    core_seconds: float  # processor time so far, all threads
    settings: dict[str, float]  # the schedule; a run resumes only under the same one
    network: dict[str, Tensor]
    average: dict[str, Tensor]
    best: dict[str, Tensor]
    best_metric: float
    optimizer: dict[str, Any]  # torch's own layout


def save_state(path: Path, state: RunState) -> None:
    """Writes to a neighbour and renames, so that a kill leaves the old state or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    fields = {name: getattr(state, name) for name in RunState.__slots__}
    torch.save({"format": STATE_FORMAT, **fields}, temporary)
    os.replace(temporary, path)


def load_state(path: Path, settings: dict[str, float]) -> RunState | None:
    """The saved run, or None when there is none or it was started under other settings."""
    if not path.exists():
        return None
    document = torch.load(path, weights_only=True, map_location="cpu")
    if document.pop("format", None) != STATE_FORMAT or document["settings"] != settings:
        return None
    return RunState(**document)
