"""Defines what qualification measured as plain frozen values that can be read back from report.json."""

from __future__ import annotations

from pydantic import Field

from saccade.export.precision.efficiency import Efficiency
from saccade.export.qualification.curves import Curves
from saccade.export.qualification.disagreements import Disagreements
from saccade.export.qualification.picture_figures import PictureFigure
from saccade.export.qualification.retrieval import RetrievalFigure
from saccade.export.qualification.trust_figures import ConfidenceFigure, TrustFigure
from saccade.export.variants import Precision
from saccade.models.contract.extras import ExtraOutput
from saccade.models.contract.manifest import LatencyFigure, MeasuredDevice, MetricFigure, OperatingPoint
from saccade.models.contract.paired_speed import PairedSpeed
from saccade.models.contract.specs import Frozen, Sha256
from saccade.models.metrics.agreement import Agreement


class MetricDrop(Frozen):
    """Reference minus variant, with the paired interval; negative means that the variant is better."""

    value: float
    ci_low: float
    ci_high: float
    is_never_worse: bool = False  # true: no selection of the images shows a drop, although the interval allows for one

    @property
    def judged(self) -> float:
        """Returns what a limit applies to: the upper end, or the measured drop where nothing was seen to be lost."""
        return self.value if self.is_never_worse else self.ci_high


class ClassDropFigure(Frozen):
    """The drop of the class that may have lost most."""

    class_id: int = Field(ge=0)
    label: str = ""  # empty in reports of earlier versions
    value: float
    ci_low: float
    ci_high: float
    is_never_worse: bool = False  # no selection of the images shows a drop of this class


class SliceFigure(Frozen):
    """The metric on the test pictures of one slice, such as those of one camera."""

    name: str  # such as camera=north
    images: int = Field(ge=1)
    value: float
    ci_low: float
    ci_high: float
    reference: float  # the eager network's metric on the same pictures
    drop: MetricDrop


class CorruptionFigure(Frozen):
    """The metric under one kind of corruption, with its drop as shares of the metric on clean pictures."""

    kind: str  # such as fog
    by_strength: tuple[float, ...]  # the variant's metric, the weakest first
    eager_by_strength: tuple[float, ...]
    clean_drop: float  # mean over strengths, against the variant on clean pictures
    eager_drop: MetricDrop  # mean over strengths, against the eager network on the same pictures


class CorruptionReport(Frozen):
    """A variant on the first test pictures, clean and corrupted; the mean is over all kinds and strengths."""

    images: int
    strengths: tuple[int, ...]
    clean: float
    eager_clean: float
    clean_drop: MetricDrop
    eager_drop: MetricDrop
    kinds: tuple[CorruptionFigure, ...]  # the kind that may have lost most against the eager network first


class ReferenceFigure(Frozen):
    """The eager network's metric on the test split, and that of the best guess that ignores the picture."""

    metric: MetricFigure
    chance: float  # the metric of the best guess
    guess: str  # what the guess does, as in "always answering 'cat'"
    faults: tuple[str, ...] = ()  # why its answers cannot be true, each with what to write in the recipe
    different_images: int | None = None  # number of test images without repetitions, by their pixels
    retrieval: RetrievalFigure | None = None  # of embedders
    pictures: PictureFigure | None = None  # of networks whose answer is a picture


class LibraryFigure(Frozen):
    """How many answers of another program the converted float network gives too, in the units of the task."""

    program: str  # the library's name, or the file of answers
    pictures: int = Field(ge=1)
    theirs: int
    same: int
    surplus: int  # answers that the other program lacks
    share: float  # of theirs and the surplus
    worst: tuple[str, ...]  # names of the pictures that differ most


class ParityFigure(Frozen):
    """Difference to the eager network at one batch size."""

    batch_size: int = Field(ge=1)
    relative_l2: float | None  # of scores and boxes, for the worst tensor; None when not finite
    class_agreement: float  # share of equal class ids or mask pixels


class SpeedRatio(Frozen):
    """Deploy graph against bare graph, measured in turns; above 1 the deploy graph is faster."""

    batch_size: int = Field(ge=1)
    ratio: float
    ci_low: float
    ci_high: float
    deploy_images_per_s: float
    bare_images_per_s: float


class HostileFigure(Frozen):
    """What the variant answered to an input that no camera makes."""

    name: str
    is_finite: bool
    is_in_range: bool


class BatchInvariance(Frozen):
    """Difference of an image alone and within a batch, for the worst of all allowed batch sizes."""

    relative_l2: float | None  # of the worst image
    usual_l2: float | None = None  # of half the images at that size at most
    id_disagreement: float  # share of differing class ids or mask pixels


class LayerFigure(Frozen):
    """One layer of the file that multiplies; the products of the answer head are left out."""

    node: str
    op: str
    layer: str  # name in the torch network; empty when the graph does not come from one
    precision: Precision
    flops: int  # per image; a multiplication with its addition counts as two
    activations: int  # output elements per image
    weights: int
    weight_bytes: int
    zero_share: float | None = None  # share of zeros in the multiplied weights; None: not constant, or not examined


class PrecisionFigure(Frozen):
    """The precision that the file multiplies in, against that of the variant's name."""

    asked: Precision
    share: float | None  # share of the network's FLOPs in this precision; None: not countable, and `problem` says why
    otherwise: tuple[str, ...] = ()  # layers in another precision, the largest first
    # such layers without a reason; None: the precision step gave no reasons for any layer
    silent: tuple[str, ...] | None = None
    parsed_by: str = ""  # the TensorRT that parsed the file; empty: none is installed, or the variant is not for it
    # layers that TensorRT's strongly typed network computes in another type than the file says
    mismatches: tuple[str, ...] = ()
    refusal: str = ""  # why TensorRT rejects the file
    problem: str = ""


class MaskFigure(Frozen):
    """Whether every layer that should be 2:4 is 2:4 in the file."""

    claimed: tuple[str, ...]
    violations: tuple[str, ...]


class SparseGain(Frozen):
    """Images per second of the sparse plan over those of its dense sibling, measured in turns."""

    sibling: str  # name of the dense variant
    batch_size: int = Field(ge=1)
    ratio: float
    ci_low: float
    ci_high: float


class ExplanationFigure(Frozen):
    """What maps of where the network looked are worth, and what they cost."""

    method: str
    pictures: int  # with boxes; of classifiers, those that were answered right
    hits: float | None  # share whose hottest place lies in a box; None: no pictures have boxes
    chance: float | None  # mean share of the picture that its boxes cover
    time_ratio: float  # of a run with the map, in runs without it


class DeviceFigures(Frozen):
    """What a built plan reached on the device that built it."""

    device: MeasuredDevice
    runtime: str  # name and version of the runtime
    is_recorded: bool  # replayed from a recording; such figures are never published
    plan_bytes: int
    precision_share: float  # share of the file's FLOPs, by the plan's own layer information
    unaccounted: tuple[str, ...]  # layers of the file that no plan layer names; they count as another precision
    sparse_layers: int | None  # number of plan layers with a sparse tactic; None: the weights are dense
    sparse_gain: SparseGain | None
    latency: tuple[LatencyFigure, ...]
    metric: MetricFigure
    drop: MetricDrop
    memory_mb: float | None = None  # device memory that the opened plan took with its buffers
    operating_point: OperatingPoint | None = None  # for detectors
    operating_drop: MetricDrop | None = None


class QualifyReport(Frozen):
    """All figures of one variant, measured on the file with this digest."""

    variant: str
    file_sha256: Sha256
    file_bytes: int  # size with external weights
    external_sha256: dict[str, Sha256] = Field(default_factory=dict)  # digests of the weight files beside it, by name
    metric: MetricFigure
    drop: MetricDrop
    per_class: tuple[float | None, ...]
    parity: tuple[ParityFigure, ...]
    batch_invariance: BatchInvariance
    hostile: tuple[HostileFigure, ...]
    is_deterministic: bool
    latency: tuple[LatencyFigure, ...] = ()  # of step `speed`, as paired_speeds, timing_failure and efficiency
    paired_speeds: tuple[PairedSpeed, ...] = ()  # against each more exact variant, the most exact first
    timing_failure: str = ""  # why it could not be timed
    speed: tuple[SpeedRatio, ...]
    measured_on: MeasuredDevice
    detail: dict[str, str | float | int | bool]
    curves: Curves | None = None
    disagreements: Disagreements | None = None
    agreement: dict[Agreement, float] | None = None  # agreement with the eager network's answers, in the task's terms
    worst_class: ClassDropFigure | None = None
    form_error: float | None = None  # worst relative L2 in the conversion proof of its own form of the weights
    mask: MaskFigure | None = None  # None: the weights are not said to be 2:4
    layers: tuple[LayerFigure, ...] = ()
    precision: PrecisionFigure | None = None
    runs_compared: int = 2  # runs of the same batch, compared bit by bit; `is_deterministic` covers all of them
    memory_mb: float | None = None  # growth of a process that opened the file and ran a batch; None: not measured here
    measured_through: str = "ONNX Runtime on the CPU"
    efficiency: Efficiency | None = None
    device: DeviceFigures | None = None  # None: no plan of it was built and measured
    reference: ReferenceFigure | None = None
    operating_point: OperatingPoint | None = None  # for detectors
    operating_drop: MetricDrop | None = None  # drop at that threshold, against the eager network at the same one
    faults: tuple[str, ...] = ()  # why answers to the test images cannot be true
    explanation: ExplanationFigure | None = None  # None: the file or its runtime gives none
    retrieval: RetrievalFigure | None = None  # of embedders
    slices: tuple[SliceFigure, ...] = ()  # of `data.slices`, the lowest metric first
    corruptions: CorruptionReport | None = None  # of step `corruptions`; None: not asked for
    trust: TrustFigure | None = None  # None: the file has no score of unfamiliarity; `detail` says why
    confidence: ConfidenceFigure | None = None  # of classifiers with one label per picture
    pictures: PictureFigure | None = None  # of networks whose answer is a picture
    extras: tuple[ExtraOutput, ...] | None = None  # what the file computes for requests that ask; None: older report
