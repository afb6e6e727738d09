"""Reads checkpoints as safetensors, never as pickles, and names every misfit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from saccade.export.artifact import file_sha256
from saccade.export.errors import SourceError

if TYPE_CHECKING:  # torch takes seconds to import, and digests need none of it
    from torch import Tensor, nn

RANDOM_WEIGHTS_SEED = 0  # a recipe without weights must still export the same network twice
_NAMED_MISFITS = 3
_PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".tar")
_WRAPPERS = (
    "module.",
    "_orig_mod.",
    "model.",
    "network.",
    "timm_model.",
)  # DataParallel, torch.compile, Lightning, timm
_CONVERT = (
    "convert it once where you trust it: "
    "`safetensors.torch.save_file(torch.load(path, weights_only=True), 'weights.safetensors')`"
)


def weights_digest(path: Path) -> str:
    """SHA-256 of a file, or over names and digests of all files that belong to it. Raises SourceError when missing."""
    try:
        if path.is_dir():
            return _files_digest(path, sorted(each for each in path.rglob("*") if each.is_file()))
        beside = _external_files(path)
        return _files_digest(path.parent, [path, *beside]) if beside else file_sha256(path)
    except OSError as error:
        raise SourceError(f"cannot read weights {path}: {error.strerror}; train the model or fix `weights`") from error


def state_dict_of(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file, or of all such files of a directory. Raises SourceError."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = {}
    for file in _safetensors_files(path):
        try:
            tensors |= load_file(file)
        except (OSError, SafetensorError) as error:
            raise SourceError(f"cannot read weights {file}: {error}") from error
    return tensors


def shapes_of(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes by tensor name, from the files' headers alone. Raises SourceError."""
    from safetensors import SafetensorError, safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for file in _safetensors_files(path):
        try:
            with safe_open(file, framework="pt") as stored:
                shapes |= {name: tuple(stored.get_slice(name).get_shape()) for name in stored.keys()}  # noqa: SIM118 (no mapping)
        except (OSError, SafetensorError) as error:
            raise SourceError(f"cannot read weights {file}: {error}") from error
    return {renamed: shapes[name] for name, renamed in unwrapped_names(shapes).items()}


def load_weights(network: nn.Module, path: Path) -> None:
    """Side effect: fills the network's parameters. Raises SourceError naming the first misfits."""
    load_tensors(network, state_dict_of(path), path.name)


def load_tensors(network: nn.Module, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Works as `load_weights`, from tensors in memory."""
    fitting = fitted_tensors(network, tensors)
    misfits = misfits_of(network, fitting)
    if misfits:
        more = f" and {len(misfits) - _NAMED_MISFITS} more" if len(misfits) > _NAMED_MISFITS else ""
        raise SourceError(
            f"weights {origin} do not fit the network: {'; '.join(misfits[:_NAMED_MISFITS])}{more}. "
            "Check the architecture's name, its arguments and the number of labels"
        )
    network.load_state_dict(dict(fitting), strict=False)


def fitted_tensors(network: nn.Module, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The tensors without a prefix that training wrappers put before every name, where the network has none."""
    wanted = set(network.state_dict())
    if wanted & set(tensors):
        return tensors
    renamed = {short: tensors[name] for name, short in unwrapped_names(tensors).items()}
    return renamed if wanted & set(renamed) else tensors


def misfits_of(network: nn.Module, tensors: Mapping[str, Tensor]) -> list[str]:
    """What keeps the tensors from filling the network: wrong shapes first, for they tell most."""
    wanted = network.state_dict()
    return [
        *(
            f"{name} has shape {tuple(tensors[name].shape)}, the network's is {tuple(wanted[name].shape)}"
            for name in wanted
            if name in tensors and tensors[name].shape != wanted[name].shape
        ),
        *(f"{name} is missing" for name in wanted if name not in tensors and not _is_optional(name)),
        *(f"{name} is not part of the network" for name in tensors if name not in wanted),
    ]


def unwrapped_names(names: Mapping[str, object]) -> dict[str, str]:
    """Each name with the name it has inside its training wrappers: prefixes that all names share."""
    short = {name: name for name in names}
    while prefix := next((each for each in _WRAPPERS if _all_begin(list(short.values()), each)), None):
        short = {name: inner.removeprefix(prefix) for name, inner in short.items()}
    return short


def _all_begin(names: list[str], prefix: str) -> bool:
    return bool(names) and all(name.startswith(prefix) for name in names)


def _safetensors_files(path: Path) -> list[Path]:
    """Raises SourceError for pickles, and for a directory without safetensors."""
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if not files:
        raise SourceError(f"{path} holds no .safetensors file; {_CONVERT}")
    for file in files:
        if file.suffix in _PICKLES:
            raise SourceError(f"{file.name} is a pickle, which can run code when it is read; {_CONVERT}")
    return files


def _external_files(path: Path) -> list[Path]:
    if path.suffix != ".onnx":
        return []
    from saccade.export.sources.onnx_files import external_files  # onnx is imported only for such weights

    return external_files(path)


def _files_digest(root: Path, files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(root).as_posix()}\0{file_sha256(file)}\n".encode())
    return digest.hexdigest()


def _is_optional(name: str) -> bool:
    """Counts of training batches are not part of inference, and not every checkpoint keeps them."""
    return name.endswith("num_batches_tracked")
