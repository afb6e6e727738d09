"""What the gate knows besides the report. Promises: values only; nothing here is read from disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from saccade.export.data.fidelity import FidelityReport
from saccade.export.gate.limits import GateThresholds
from saccade.export.qualification.qualify_report import QualifyReport
from saccade.export.variants import TRAITS, VariantTraits
from saccade.models.contract.manifest import Variant


@dataclass(frozen=True, slots=True)
class GateFacts:
    """The files about to be published, where the network comes from, and what was published before."""

    file_sha256: str
    external_sha256: Mapping[str, str] | None = None  # of weight files, by name; None: they were not hashed again
    is_trained: bool = True
    fidelity: FidelityReport | None = None  # how the server's pixels compare with the library's, where it has some
    previous: Variant | None = None  # the same variant of the newest published version
    agreed: GateThresholds | None = None  # what the recipe says, where it is at hand to compare with
    report_sha256: tuple[str, str] | None = None  # of the report as it lies there, and as the manifest lists it


@dataclass(frozen=True, slots=True)
class Judged:
    """One variant before the gate."""

    report: QualifyReport
    thresholds: GateThresholds
    facts: GateFacts

    @property
    def traits(self) -> VariantTraits:
        """Raises ValueError for a report about something that is no variant."""
        for name, traits in TRAITS.items():
            if name == self.report.variant:
                return traits
        raise ValueError(f"{self.report.variant!r} is no variant; there are: {', '.join(TRAITS)}")
