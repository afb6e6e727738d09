"""Composes a report's sections, the same for every format, with pure functions of ExportReport.

`blocks.py` defines what a section consists of. `verdicts.py` says what was decided, `speed.py` what it costs,
`layers.py` what each layer became, `pruning.py` what was left out, `mistakes.py` where answers are wrong, `slices.py`
and `corruptions.py` on which pictures, `explanations.py` what networks look at, `trust.py` which pictures are
unfamiliar, `lineage.py` what everything was made of.
"""

from __future__ import annotations

from saccade.export.reports.export_report import ExportReport
from saccade.export.reports.sections.blocks import Section
from saccade.export.reports.sections.corruptions import corruption_section
from saccade.export.reports.sections.explanations import explanation_section
from saccade.export.reports.sections.layers import compression_section, layer_section
from saccade.export.reports.sections.lineage import lineage_section, proof_section
from saccade.export.reports.sections.mistakes import disagreement_section, mistake_section
from saccade.export.reports.sections.slices import slice_section
from saccade.export.reports.sections.speed import latency_section, tradeoff_section
from saccade.export.reports.sections.trust import trust_section
from saccade.export.reports.sections.verdicts import gate_section, verdict_section

_SECTIONS = (
    verdict_section,
    tradeoff_section,
    disagreement_section,
    slice_section,
    corruption_section,
    gate_section,
    layer_section,
    compression_section,
    latency_section,
    mistake_section,
    explanation_section,
    trust_section,
    proof_section,
    lineage_section,
)


def sections_of(report: ExportReport) -> tuple[Section, ...]:
    """Returns all sections that have something to say, in the order of a reader's questions."""
    return tuple(section for section in (make(report) for make in _SECTIONS) if section.blocks)
