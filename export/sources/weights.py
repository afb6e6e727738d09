"""Reads checkpoints. Promises: safetensors only, no pickle is ever opened, and every misfit is named."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from export.artifact import file_sha256
from export.errors import SourceError

RANDOM_WEIGHTS_SEED = 0  # a recipe without weights must still export the same network twice
_NAMED_MISFITS = 3
_PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".tar")


def weights_digest(path: Path) -> str:
    """SHA-256 of a file, or over names and digests of all files of a directory. Raises SourceError when missing."""
    try:
        if not path.is_dir():
            return file_sha256(path)
        digest = hashlib.sha256()
        for file in sorted(each for each in path.rglob("*") if each.is_file()):
            digest.update(f"{file.relative_to(path).as_posix()}\0{file_sha256(file)}\n".encode())
        return digest.hexdigest()
    except OSError as error:
        raise SourceError(f"cannot read weights {path}: {error.strerror}; train the model or fix `weights`") from error


def state_dict_of(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file, or of all such files of a directory. Raises SourceError."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if not files:
        raise SourceError(f"{path} holds no .safetensors file; {_CONVERT}")
    tensors: dict[str, Tensor] = {}
    for file in files:
        if file.suffix in _PICKLES:
            raise SourceError(f"{file.name} is a pickle, which can run code when it is read; {_CONVERT}")
        try:
            tensors |= load_file(file)
        except (OSError, SafetensorError) as error:
            raise SourceError(f"cannot read weights {file}: {error}") from error
    return tensors


_CONVERT = (
    "convert it once where you trust it: "
    "`safetensors.torch.save_file(torch.load(path, weights_only=True), 'weights.safetensors')`"
)


def load_weights(network: nn.Module, path: Path) -> None:
    """Side effect: fills the network's parameters. Raises SourceError naming the first misfits."""
    load_tensors(network, state_dict_of(path), path.name)


def load_tensors(network: nn.Module, tensors: Mapping[str, Tensor], origin: str) -> None:
    """As `load_weights`, from tensors in memory."""
    wanted = network.state_dict()
    misfits = [
        *(f"{name} is missing" for name in wanted if name not in tensors and not _is_optional(name)),
        *(f"{name} is not part of the network" for name in tensors if name not in wanted),
        *(
            f"{name} has shape {tuple(tensors[name].shape)}, the network's is {tuple(wanted[name].shape)}"
            for name in wanted
            if name in tensors and tensors[name].shape != wanted[name].shape
        ),
    ]
    if misfits:
        more = f" and {len(misfits) - _NAMED_MISFITS} more" if len(misfits) > _NAMED_MISFITS else ""
        raise SourceError(
            f"weights {origin} do not fit the network: {'; '.join(misfits[:_NAMED_MISFITS])}{more}. "
            "Check the architecture's name, its arguments and the number of labels"
        )
    network.load_state_dict(dict(tensors), strict=False)


def _is_optional(name: str) -> bool:
    """Counts of training batches are not part of inference, and not every checkpoint keeps them."""
    return name.endswith("num_batches_tracked")
