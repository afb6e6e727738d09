"""The recipe's sections on compression: 2:4 sparsity, structured pruning and recovery."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from saccade.models.contract.specs import Frozen

PRUNING_FILE = "pruning.json"  # written beside a pruned form's deploy module: which channels left, and what it cost

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class RecoverySpec(Frozen):
    """How a compressed network learns its answers back from the `train` split, or from `calibration` without one.

    The dense network is the teacher, and the student imitates its raw outputs on images that are augmented anew in
    every step: function matching (Beyer et al., Knowledge distillation: a good teacher is patient and consistent, arXiv
    2106.05237).
    """

    steps: int = Field(default=600, ge=0, le=1_000_000)  # 0: one-shot pruning, nothing is learned
    batch_size: int = Field(default=64, ge=1, le=4096)
    peak_lr: float = Field(default=1e-3, gt=0)
    labels_share: Share = 0.0  # share of the loss that the true labels get instead of the teacher; 1: plain fine-tuning
    temperature: float = Field(default=2.0, gt=0)  # softens teacher and student when the answer is a distribution
    # First share of the steps in which masks are chosen anew while pruned weights decay (SR-STE, arXiv 2102.04010);
    # the share of entries that change sides, the flip rate, is reported. Afterwards masks stay.
    moving_mask_share: Share = 0.0
    masked_decay: float = Field(default=2e-4, ge=0)
    dense_steps: int = Field(
        default=0, ge=0
    )  # dense fine-tuning steps at the end; they give a better dense network, not a sparse one
    # steps between measurements; the best weights on the tuning split are kept
    evaluate_every: int = Field(default=200, ge=1)
    seed: int = Field(default=0, ge=0)


class SparsitySpec(Frozen):
    """2:4 sparsity along input channels, at each output channel and kernel position."""

    method: Literal["magnitude", "second_order", "random"] = "second_order"
    permutation: bool = True  # reorder input channels so that more of the weights' magnitude is kept
    permutation_budget_s: float = Field(default=30.0, gt=0)
    min_input_channels: int = Field(default=16, ge=4)
    min_output_channels: int = Field(default=8, ge=1)
    keep_dense: tuple[str, ...] = ()  # name prefixes of layers that stay dense
    recovered: str | None = None  # weights of an earlier recovery, a safetensors file relative to the recipe
    recovery: RecoverySpec = RecoverySpec()


class PruningSpec(Frozen):
    """Whole channels are removed until the network needs at most this share of its arithmetic."""

    flop_share: float = Field(default=0.6, gt=0, le=1)  # share of the dense network's multiply-adds
    round_to: int = Field(default=8, ge=1)  # channel counts stay multiples of this
    min_kept_share: float = Field(default=0.25, gt=0, le=1)  # share of each group's channels that stays at least
    keep_dense: tuple[str, ...] = ()  # name prefixes of layers that keep their width
    recovery: RecoverySpec = RecoverySpec(steps=1200)
