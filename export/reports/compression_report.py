"""Reads what compression and quantization wrote about layers; a file that a step did not write is absent here too."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from saccade.export.compression.sparsity.mask_check import SPARSITY_FILE
from saccade.export.compression.spec import PRUNING_FILE
from saccade.export.errors import RecipeError
from saccade.export.precision.files import LAYERS_FILE


class _Written(BaseModel):
    """The part that the report reads of a file that another step wrote."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class QuantizedLayer(_Written):
    layer: str
    node: str = ""  # node of the graph, where a layer has several
    op: str = ""
    sensitivity: float | None = None  # dB of signal over quantization noise; None: not measured
    quantized: bool
    reason: str = ""  # why it is not quantized


class SparseLayer(_Written):
    layer: str
    eligible: bool
    reason: str = ""  # why it is not eligible
    kept_magnitude_identity: float | None = None  # share of the weights' magnitude, with channels in their own order
    kept_magnitude_permuted: float | None = None


class OneShotFigure(_Written):
    """The masked network's metric before recovery."""

    method: str
    permuted: bool | None = None  # whether input channels were reordered first; None: not recorded
    tuning_metric: float


class RecoveryFigure(_Written):
    step: int
    tuning_metric: float
    flip_rate: float | None = None  # share of mask entries that changed sides since the last figure


class Recovery(_Written):
    images: int | None = None  # number of images that it learned from
    history: tuple[RecoveryFigure, ...] = ()


class SparsityReport(_Written):
    method: str = ""
    dense_tuning_metric: float | None = None
    tuning_metric: float | None = None  # after recovery
    permutation_error: float | None = None  # relative L2 of the raw outputs, which permuting must not change
    claimed: tuple[str, ...] = ()  # layers whose weights are 2:4
    claimed_share: float | None = None  # of the network's multiply-adds, in those layers
    best_possible_gain: float | None = None  # ratio of images per second that perfect sparse kernels would reach
    layers: tuple[SparseLayer, ...] = ()
    one_shot: tuple[OneShotFigure, ...] = ()
    recovery: Recovery = Recovery()


class PrunedLayer(_Written):
    layer: str
    dense: tuple[int, ...]  # output and input channels before
    pruned: tuple[int, ...]  # and after


class PruningReport(_Written):
    dense_multiply_adds: int
    multiply_adds: int
    dense_parameters: int
    parameters: int
    dense_tuning_metric: float
    one_shot_tuning_metric: float  # without the channels, before recovery
    tuning_metric: float  # after recovery
    layers: tuple[PrunedLayer, ...]
    recovery: Recovery = Recovery()


Kind = TypeVar("Kind", bound=BaseModel)


def read_sparsity(directory: Path) -> SparsityReport | None:
    """Reads the artifact of `compress.sparse24`. Raises RecipeError for a file of another form."""
    return _read_whole(directory / SPARSITY_FILE, SparsityReport)


def read_pruning(directory: Path) -> PruningReport | None:
    """Reads the artifact of `compress.pruned`. Raises RecipeError as above."""
    return _read_whole(directory / PRUNING_FILE, PruningReport)


def read_quantized_layers(directory: Path) -> tuple[QuantizedLayer, ...]:
    """Reads the artifact of `precision`: a list, or a document with `layers`. Raises RecipeError as above."""
    path = directory / LAYERS_FILE
    if not path.exists():
        return ()
    document = orjson.loads(path.read_bytes())
    rows = document.get("layers", []) if isinstance(document, dict) else document
    return tuple(_read(path, QuantizedLayer, row) for row in rows)


def _read_whole(path: Path, kind: type[Kind]) -> Kind | None:
    return _read(path, kind, orjson.loads(path.read_bytes())) if path.exists() else None


def _read(path: Path, kind: type[Kind], document: object) -> Kind:
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise RecipeError(f"{path.name}: {where}: {first['msg']}; run the step that wrote it again") from error
