"""Measures blocks and quantization policies; compared files run alternately in one loop on the serving backend."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from saccade.export.graph.large_files import save_graph
from saccade.export.precision.quantization.calibration import Calibrator
from saccade.export.precision.quantization.candidates import (
    Attempt,
    Workbench,
    measured_candidate,
    plan_ranges,
    plan_without,
)
from saccade.export.precision.quantization.policy_search import (
    Block,
    BlockFigure,
    PolicyFigure,
    PolicyReport,
    Prediction,
    block_noise,
    blocks_of,
    predicted_policies,
    slowest_share,
    taken_out,
    winner_of,
)
from saccade.export.precision.quantization.sensitivity import Sensitivities
from saccade.export.qualification.benchmark import seconds_per_run, speed_ratio
from saccade.export.qualification.evidence import accuracy_of
from saccade.export.qualification.serving import open_racing_backend
from saccade.export.recipe import PolicySpec

_REPEATS = 1000


def searched(
    bench: Workbench, spec: PolicySpec, all_int8: Attempt, calibrator: Calibrator, found: Sensitivities
) -> tuple[Attempt, PolicyReport]:
    """Returns the winning policy, or all-int8 when nothing beats it, and the report of what was measured."""
    blocks = blocks_of(all_int8.plan.nodes, set(found.noise))
    noise = block_noise(blocks, found.noise)
    bench.context.note(f"timing {len(blocks)} blocks")
    pairs = _timed(bench, spec, all_int8.candidate.file, _without_each(bench, blocks, calibrator))
    whole_s = min(float(_fastest(turns)[0]) for turns in pairs)
    saved = np.array([whole_s * (1.0 - float(np.divide(*_fastest(turns)[::-1]))) for turns in pairs])
    predictions = predicted_policies(whole_s, whole_s * slowest_share(spec), saved, noise, spec.candidates)
    attempts = [_attempt(bench, blocks, each, calibrator) for each in predictions]
    bench.context.note(f"timing {len(attempts)} policies")
    figures = tuple(
        _figure(bench, blocks, prediction, attempt, all_int8, turns)
        for prediction, attempt, turns in zip(
            predictions,
            attempts,
            _timed(bench, spec, all_int8.candidate.file, [each.candidate.file for each in attempts]),
            strict=True,
        )
    )
    winner = winner_of(figures, spec)
    report = PolicyReport(
        objective=spec.objective,
        batch_size=spec.batch_size,
        all_int8_ms=_ms(whole_s),
        all_int8_metric=all_int8.candidate.metric,
        blocks=tuple(_block_figure(block, *each) for block, *each in zip(blocks, saved, noise, strict=True)),
        candidates=figures,
        winner=winner,
        keep_float=() if winner is None else tuple(taken_out(blocks, predictions[winner].float_blocks)),
    )
    return all_int8 if winner is None else attempts[winner], report


def _without_each(bench: Workbench, blocks: Sequence[Block], calibrator: Calibrator) -> list[Path]:
    """Makes one file per block, in which that block alone is float."""
    files: list[Path] = []
    for index in range(len(blocks)):
        plan = plan_without(bench, taken_out(blocks, [index]))
        files.append(bench.scratch / f"without-block-{index}.onnx")
        save_graph(plan.apply(plan_ranges(bench, plan, calibrator)), files[-1])
    return files


def _attempt(bench: Workbench, blocks: Sequence[Block], prediction: Prediction, calibrator: Calibrator) -> Attempt:
    plan = plan_without(bench, taken_out(blocks, prediction.float_blocks))
    name = (
        f"{calibrator.name}{bench.label}, float: {', '.join(blocks[index].name for index in prediction.float_blocks)}"
    )
    file_name = "policy-" + "-".join(map(str, prediction.float_blocks))
    return Attempt(plan, measured_candidate(bench, plan, plan_ranges(bench, plan, calibrator), name, file_name))


def _timed(bench: Workbench, spec: PolicySpec, all_int8: Path, files: Sequence[Path]) -> list[NDArray[np.float64]]:
    """Returns durations (rounds, 2) of one batch for all-int8 and each file.

    Only two files run in a loop: with more, a file that begins a round directly after ending the last would find its
    weights in the cache.
    """
    images = np.ascontiguousarray(bench.tuning.images[: spec.batch_size])
    budget_s = spec.budget_s / 2 / max(len(files), 1)
    pairs: list[NDArray[np.float64]] = []
    for file in files:
        backends = [open_racing_backend(each, bench.context.recipe) for each in (all_int8, file)]
        runs = [lambda backend=backend: backend.infer(images) for backend in backends]
        pairs.append(seconds_per_run(runs, _REPEATS, budget_s))
        for backend in backends:
            backend.close()
    return pairs


def _fastest(turns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the tenth percentiles (2,): other work only adds time, and a burst of it may last for most rounds."""
    found: NDArray[np.float64] = np.percentile(turns, 10, axis=0)
    return found


def _figure(
    bench: Workbench,
    blocks: Sequence[Block],
    prediction: Prediction,
    attempt: Attempt,
    all_int8: Attempt,
    turns: NDArray[np.float64],
) -> PolicyFigure:
    ratio = speed_ratio(turns[:, ::-1], 1)  # a ratio does not depend on the batch size
    found, expected = attempt.candidate.evidence, all_int8.candidate.evidence
    assert found is not None
    assert expected is not None
    drop = accuracy_of(found, expected, bench.context.recipe.qualify.bootstrap_resamples).drop
    return PolicyFigure(
        float_blocks=tuple(blocks[index].name for index in prediction.float_blocks),
        predicted_ms=_ms(prediction.seconds),
        ms=_ms(_fastest(turns)[1]),
        speed_ratio=ratio.ratio,
        ratio_low=ratio.ci_low,
        ratio_high=ratio.ci_high,
        tuning_metric=attempt.candidate.metric,
        gain=-drop.value,
        gain_low=-drop.high,
        gain_high=-drop.low,
    )


def _block_figure(block: Block, saved_s: float, noise: float) -> BlockFigure:
    decibels = Sensitivities({block.name: noise}, 0.0).decibels(block.name) if noise > 0.0 else None
    return BlockFigure(name=block.name, nodes=len(block.nodes), saved_ms=_ms(saved_s), noise_db=decibels)


def _ms(seconds: float) -> float:
    return round(float(seconds) * 1e3, 4)
