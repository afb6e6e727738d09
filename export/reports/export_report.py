"""Holds the whole report of one export; report.json reads back into it, and the gate can judge it again."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationError

from saccade.export.data.fidelity import FidelityReport
from saccade.export.errors import RecipeError
from saccade.export.gate.limits import GateThresholds
from saccade.export.qualification.qualify_report import LibraryFigure, QualifyReport
from saccade.export.reports.compression_report import PruningReport, QuantizedLayer, SparsityReport
from saccade.models.contract.manifest import GateDecision, MetricFigure, OperatingPoint, TargetSupport
from saccade.models.contract.quality_ranges import QualityRanges
from saccade.models.contract.specs import Frozen, Normalisation, PreprocessSpec, Task

REPORT_JSON = "report.json"
REPORT_MARKDOWN = "report.md"
REPORT_HTML = "report.html"
_NAMED = 6  # labels
_MOST_CLASSES, _WORST_CLASSES = 50, 20  # larger tables and plots cannot be read


class CalibratorFigure(Frozen):
    """The metric that one calibrator reached on the tuning split."""

    calibrator: str
    tuning_metric: float


class CalibrationTable(Frozen):
    variant: str
    tuning_images: int
    candidates: tuple[CalibratorFigure, ...]


class StepFigure(Frozen):
    """One step's identity and cost."""

    step: str
    digest: str
    seconds: float  # of the run that made it, also when it was reused


class VariantReport(Frozen):
    qualify: QualifyReport
    gate: GateDecision


class ConversionFigure(Frozen):
    """Difference of one raw output between the ONNX file and the eager network."""

    output: str
    batch_size: int
    relative_l2: float


class FoldFigure(Frozen):
    """Layers folded into others, and how far the result is from the original (relative L2)."""

    name: str
    layers: int
    relative_error: float


class ExportReport(Frozen):
    """Everything measured about one model."""

    schema_version: int = 1
    model: str
    task: Task
    labels: tuple[str, ...]
    preprocess: PreprocessSpec | None = None  # None: of an older report
    normalisation: Normalisation | None = None  # None: of an older report
    quality: QualityRanges | None = None  # of the calibration pictures; None: of an older report, or of task image
    source: str
    weights: str
    created: str  # ISO 8601, UTC
    reference: MetricFigure  # eager fp32
    reference_operating_point: OperatingPoint | None = None  # of detectors, at their score threshold
    network: dict[str, str | float | int | bool]
    variants: tuple[VariantReport, ...]
    lost: dict[str, str] = Field(default_factory=dict)  # variants of the recipe that could not be made, and why
    calibration: tuple[CalibrationTable, ...]
    thresholds: GateThresholds
    looser_data_limits: tuple[str, ...] = ()  # of data and measuring, what the recipe loosened, with both numbers
    fidelity: FidelityReport | None = None  # None: the source has no transform to compare with
    library: LibraryFigure | None = None  # None: the recipe names no other program
    conversion: tuple[ConversionFigure, ...] = ()
    folds: tuple[FoldFigure, ...] = ()
    targets: tuple[TargetSupport, ...] = ()
    not_batchable_reason: str = ""
    steps: tuple[StepFigure, ...]
    environment: dict[str, str]
    command: str = ""  # the command that made it, ready to paste
    splits: dict[str, str] = Field(default_factory=dict)  # digest of each data split that was used
    # how other forms of the weights were made
    forms: dict[str, dict[str, str | float | int | bool]] = Field(default_factory=dict)
    sparsity: SparsityReport | None = None  # None: no variant has 2:4 weights
    pruning: PruningReport | None = None  # None: no variant lacks channels
    quantized_layers: dict[str, tuple[QuantizedLayer, ...]] = Field(default_factory=dict)  # by variant

    def unmeasured_labels(self) -> str:
        """Names the labels that no test picture shows; empty where all occur, or where nothing is judged."""
        figures = self.variants[0].qualify.per_class if self.variants and self.thresholds.needs_labels else ()
        absent = [label for label, figure in zip(self.labels, figures, strict=False) if figure is None]
        return ", ".join(absent[:_NAMED]) + (f" and {len(absent) - _NAMED} more" if len(absent) > _NAMED else "")

    def shown_classes(self) -> list[int]:
        """Returns all classes, or of many only those that the first variant does least well."""
        every = list(range(len(self.labels)))
        if len(every) <= _MOST_CLASSES:
            return every
        figures = self.variants[0].qualify.per_class
        counted = sorted((figure, index) for index, figure in enumerate(figures) if figure is not None)
        return [index for _, index in counted[:_WORST_CLASSES]]


def read_report(path: Path) -> ExportReport:
    """Reads a report. Raises RecipeError when `path` holds no export report."""
    try:
        return ExportReport.model_validate_json(path.read_bytes())
    except OSError as error:
        raise RecipeError(f"cannot read {path}: {error.strerror}") from error
    except ValidationError as error:
        raise RecipeError(f"{path} is not a report of this schema: {error.errors()[0]['msg']}") from error
