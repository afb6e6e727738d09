"""Defines as plain values what the gate knows besides the report; nothing is read from disk here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from saccade.export.data.fidelity import FidelityReport
from saccade.export.errors import RecipeError
from saccade.export.gate.limits import GateThresholds
from saccade.export.qualification.qualify_report import LibraryFigure, QualifyReport
from saccade.export.variants import TRAITS, VariantTraits
from saccade.models.contract.manifest import Variant


@dataclass(frozen=True, slots=True)
class GateFacts:
    """The files to be published, where the network comes from, and what was published before."""

    file_sha256: str
    # digests of weight files by name; None: they were not hashed again
    external_sha256: Mapping[str, str] | None = None
    is_trained: bool = True
    # how the server's pixels compare with the library's, when it has a transform
    fidelity: FidelityReport | None = None
    library: LibraryFigure | None = None  # how answers compare with another program's, when the recipe names one
    previous: Variant | None = None  # the same variant of the newest published version
    agreed: GateThresholds | None = None  # the recipe's thresholds, when the recipe is available
    report_sha256: tuple[str, str] | None = None  # hash of the report as computed now, and as the manifest lists it


@dataclass(frozen=True, slots=True)
class Judged:
    """One variant before the gate."""

    report: QualifyReport
    thresholds: GateThresholds
    facts: GateFacts

    @property
    def traits(self) -> VariantTraits:
        """Returns the variant's traits. Raises RecipeError when the report is about something that is no variant."""
        for name, traits in TRAITS.items():
            if name == self.report.variant:
                return traits
        raise RecipeError(f"the report's {self.report.variant!r} is no variant; there are: {', '.join(TRAITS)}")
