"""Checkpoints and the figures they reach. figures.json names the weights' digest that each figure belongs to."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

FIGURES_NAME = "figures.json"
TARGETS = {  # on test
    "digits-classifier": 0.98,
    "digits-detector": 0.60,
    "digits-segmenter": 0.80,
    "digits-vit": 0.96,
    "scenes-denoiser": 30.0,  # dB; the noisy pictures have 20.7
    "scenes-super-resolution": 40.0,  # dB; Pillow's bicubic filter reaches 37.1
}


@dataclass(frozen=True, slots=True)
class TrainingFigure:
    """One network's entry in figures.json."""

    metric: Literal["top1", "map", "miou", "psnr"]
    value: float  # the metric on the test split
    test_images: int
    tuning_value: float
    tuning_images: int
    train_images: int
    command: str
    seconds: float  # of training, without drawing the samples; wall time, so other load on the machine counts
    core_seconds: float  # processor time of the same
    parameters: int  # including heads that only training uses
    flops: int  # of inference on one image; one multiply-add counts as two
    weights_sha256: str


def checkpoint_path(directory: Path, name: str) -> Path:
    return directory / f"{name}.safetensors"


def save_checkpoint(directory: Path, name: str, weights: dict[str, Tensor]) -> str:
    """Writes the weights atomically and returns the file's SHA-256."""
    directory.mkdir(parents=True, exist_ok=True)
    path = checkpoint_path(directory, name)
    temporary = path.with_suffix(".partial")
    save_file({key: tensor.contiguous() for key, tensor in weights.items()}, temporary)
    temporary.chmod(0o644)  # safetensors writes 0600, which a service user could not read
    os.replace(temporary, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def load_checkpoint(directory: Path, name: str, network: nn.Module) -> nn.Module:
    """`network` with the checkpoint's weights, in evaluation mode. Raises RuntimeError for other shapes or names."""
    network.load_state_dict(load_file(checkpoint_path(directory, name)), strict=True)
    return network.eval()


def read_figures(directory: Path) -> dict[str, TrainingFigure]:
    path = directory / FIGURES_NAME
    if not path.exists():
        return {}
    document: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return {name: TrainingFigure(**fields) for name, fields in document.items()}


def write_figure(directory: Path, name: str, figure: TrainingFigure) -> None:
    """Replaces one network's line and keeps the others."""
    figures = {**read_figures(directory), name: figure}
    document = {key: asdict(figures[key]) for key in sorted(figures)}
    path = directory / FIGURES_NAME
    temporary = path.with_suffix(".partial")
    temporary.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)
