"""Score against baseline. Promises: better is said only of what these pictures can tell apart."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from saccade.export.qualification.familiarity import Scores, baseline_gain
from saccade.export.qualification.trust_figures import ForeignFigure, TrustFigure
from saccade.export.reports.export_report import VariantReport
from saccade.export.reports.report_files import markdown
from tests.support.reports import check, decision, qualified, whole_report

RNG = np.random.default_rng(0)


def scores(count: int, score: float, baseline: float) -> Scores:
    return Scores(RNG.normal(score, 1, count), RNG.normal(baseline, 1, count))


def auroc(known: np.ndarray, foreign: np.ndarray) -> float:
    return float(roc_auc_score(np.repeat([0, 1], [len(known), len(foreign)]), np.concatenate([known, foreign])))


def test_a_gain_lies_within_its_interval_and_is_told_from_none() -> None:
    known = scores(200, 0.0, 0.0)
    better, alike = scores(180, 1.0, 3.0), scores(180, 2.0, 2.1)

    low, high = baseline_gain(known, better)

    gained = auroc(known.baseline, better.baseline) - auroc(known.unfamiliarity, better.unfamiliarity)
    assert 0 < low < gained < high
    low, high = baseline_gain(known, alike)
    assert low < 0 < high


def told(gain: tuple[float, float] | None, baseline: float = 0.98) -> str:
    foreign = ForeignFigure(kind="all", pictures=180, auroc=0.97, baseline_auroc=baseline, unfamiliar_share=0.8)
    figure = TrustFigure(
        pictures=200,
        familiar_share=0.95,
        foreign=foreign,
        kinds=(),
        damaged=(),
        baseline="energy",
        baseline_gain=gain,
        cost=0.05,
        cost_high=0.06,
    )
    variant = VariantReport(qualify=qualified("fp32", trust=figure), gate=decision(check("a")))
    return markdown(whole_report(variants=(variant,)))


@pytest.mark.parametrize(
    ("gain", "words"),
    [
        ((0.002, 0.02), "a difference of +0.0020 to +0.0200: it tells these foreign pictures better."),
        ((-0.01, 0.02), "a difference of -0.0100 to +0.0200: so many pictures do not tell which is better."),
        (None, "the energy alone reaches 0.9800 against 0.9700."),
    ],
)
def test_the_report_says_whether_the_baseline_is_better(gain: tuple[float, float] | None, words: str) -> None:
    assert words in told(gain)
    assert "alone reaches" not in told(gain, baseline=0.9)
