"""What qualification measured. Promises: plain frozen values, readable back from report.json, no verdicts."""

from __future__ import annotations

from pydantic import Field

from saccade.export.gate.limits import Agreement
from saccade.export.precision.efficiency import Efficiency
from saccade.export.qualification.curves import Curves
from saccade.export.qualification.disagreements import Disagreements
from saccade.export.variants import Precision
from saccade.models.contract.manifest import LatencyFigure, MeasuredDevice, MetricFigure, OperatingPoint
from saccade.models.contract.specs import Frozen, Sha256


class MetricDrop(Frozen):
    """Reference minus variant, with the paired interval; negative means the variant is better."""

    value: float
    ci_low: float
    ci_high: float
    is_never_worse: bool = False  # on no selection of the images: what the interval allows for was not seen


class ClassDropFigure(Frozen):
    """The same of the one class that may have lost most."""

    class_id: int = Field(ge=0)
    value: float
    ci_low: float
    ci_high: float


class ReferenceFigure(Frozen):
    """What the eager network is worth on the test split, beside the best that needs no picture."""

    metric: MetricFigure
    chance: float  # the metric of the best guess
    guess: str  # what it does, as in "always answering 'cat'"
    faults: tuple[str, ...] = ()  # why its answers cannot be true, each with what to write in the recipe


class ParityFigure(Frozen):
    """Difference to the eager network at one batch size."""

    batch_size: int = Field(ge=1)
    relative_l2: float | None  # scores and boxes, worst tensor; None when not finite
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
    """What the variant answered to an input no camera makes."""

    name: str
    is_finite: bool
    is_in_range: bool


class BatchInvariance(Frozen):
    """The same image alone and within a batch, worst over all allowed batch sizes."""

    relative_l2: float | None
    id_disagreement: float  # share of differing class ids or mask pixels


class LayerFigure(Frozen):
    """One layer of the file that multiplies; the answer head's own products are left out."""

    node: str
    op: str
    layer: str  # of the torch network; empty when the graph does not come from one
    precision: Precision
    flops: int  # per image, multiplication and addition as two
    activations: int  # output elements per image
    weights: int
    weight_bytes: int
    zero_share: float | None = None  # of the weights as they are multiplied; None: not constant, or not looked at


class PrecisionFigure(Frozen):
    """What the file multiplies in, against what the variant's name says."""

    asked: Precision
    share: float | None  # of the network's FLOPs in it; None: they cannot be counted, `problem` says why
    otherwise: tuple[str, ...] = ()  # layers in another precision, the largest first
    silent: tuple[str, ...] | None = None  # those without a reason; None: the precision step gave none for any layer
    parsed_by: str = ""  # the TensorRT that parsed the file; empty: none is installed, or the variant is not for it
    mismatches: tuple[str, ...] = ()  # layers that TensorRT's strongly typed network does in another type than the file
    refusal: str = ""  # why TensorRT does not take the file
    problem: str = ""


class MaskFigure(Frozen):
    """Whether every layer that is said to be 2:4 is 2:4 in the file."""

    claimed: tuple[str, ...]
    violations: tuple[str, ...]


class SparseGain(Frozen):
    """Images per second of the sparse plan over its dense sibling's, measured in turns."""

    sibling: str  # variant
    batch_size: int = Field(ge=1)
    ratio: float
    ci_low: float
    ci_high: float


class DeviceFigures(Frozen):
    """What a built plan does where it was built."""

    device: MeasuredDevice
    runtime: str  # with its version
    is_recorded: bool  # replayed from a recording: never published
    plan_bytes: int
    precision_share: float  # of the file's FLOPs, by the plan's own layer information
    unaccounted: tuple[str, ...]  # the file's layers that no plan layer names; they count as another precision
    sparse_layers: int | None  # plan layers with a sparse tactic; None: the weights are dense
    sparse_gain: SparseGain | None
    latency: tuple[LatencyFigure, ...]
    metric: MetricFigure
    drop: MetricDrop
    memory_mb: float | None = None  # of the device, that the opened plan took with its buffers
    operating_point: OperatingPoint | None = None  # of detectors
    operating_drop: MetricDrop | None = None


class QualifyReport(Frozen):
    """All figures of one variant, measured on the file with this digest."""

    variant: str
    file_sha256: Sha256
    file_bytes: int  # with its external weights
    external_sha256: dict[str, Sha256] = Field(default_factory=dict)  # weight files beside it, by name
    metric: MetricFigure
    drop: MetricDrop
    per_class: tuple[float | None, ...]
    parity: tuple[ParityFigure, ...]
    batch_invariance: BatchInvariance
    hostile: tuple[HostileFigure, ...]
    is_deterministic: bool
    latency: tuple[LatencyFigure, ...]
    speed: tuple[SpeedRatio, ...]
    measured_on: MeasuredDevice
    detail: dict[str, str | float | int | bool]
    curves: Curves | None = None
    disagreements: Disagreements | None = None
    agreement: dict[Agreement, float] | None = None  # with the eager network's answers, in the task's terms
    worst_class: ClassDropFigure | None = None
    form_error: float | None = None  # worst relative L2 of the conversion proof of its own form of the weights
    mask: MaskFigure | None = None  # None: the weights are not said to be 2:4
    layers: tuple[LayerFigure, ...] = ()
    precision: PrecisionFigure | None = None
    runs_compared: int = 2  # of the same batch, bit by bit; `is_deterministic` speaks of all of them
    memory_mb: float | None = None  # that a process grew by when it opened the file and ran a batch; None: not here
    measured_through: str = "ONNX Runtime on the CPU"
    efficiency: Efficiency | None = None
    device: DeviceFigures | None = None  # None: no plan of it was built and measured
    reference: ReferenceFigure | None = None
    operating_point: OperatingPoint | None = None  # of detectors
    operating_drop: MetricDrop | None = None  # there, against the eager network there
    faults: tuple[str, ...] = ()  # why answers to the test images cannot be true
