"""JSON of the REST API, for its OpenAPI document and the routes that are not hot; a golden holds its shapes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from saccade.service.api.http.image_bodies import RAW_TYPES


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str


class FailedImage(BaseModel):
    error: Problem


class ClassScore(BaseModel):
    label: str
    class_id: int
    score: float


class ReadPicture(BaseModel):
    width: int
    height: int
    warning: str | None = Field(None, description="only where the picture is damaged: why parts of it may be lost")


class Classification(ReadPicture):
    classes: list[ClassScore]


class DetectedObject(BaseModel):
    label: str
    class_id: int
    score: float
    box: Annotated[list[float], Field(min_length=4, max_length=4, description="x1 y1 x2 y2, source pixels")]


class Detection(ReadPicture):
    detections: list[DetectedObject]


class RunLengths(BaseModel):
    """COCO compressed run lengths."""

    size: Annotated[list[int], Field(min_length=2, max_length=2, description="height, width")]
    counts: str


class Polygon(BaseModel):
    exterior: list[list[float]]
    holes: list[list[list[float]]]


class Instance(DetectedObject):
    area: int = Field(description="number of the mask's pixels")
    rle: RunLengths | None = None
    polygons: list[Polygon] | None = None
    mask_png: str | None = Field(None, description="base64 of a 1-bit PNG of the picture's size")


class Instances(ReadPicture):
    """A detection with a mask per object."""

    detections: list[Instance]


class Segment(BaseModel):
    label: str
    class_id: int
    area: int
    rle: RunLengths | None = None
    polygons: list[Polygon] | None = None


class Segmentation(ReadPicture):
    segments: list[Segment]
    mask_png: str | None = Field(None, description="base64 of an 8-bit PNG of class ids")


class TimingsMs(BaseModel):
    decode: float
    queue: float
    infer: float
    postprocess: float
    total: float


class PredictAnswer(BaseModel):
    """One prediction per image, in order; an image that failed among several holds its error instead."""

    model: str
    version: str
    variant: str
    request_id: str
    predictions: list[Classification | Detection | Instances | Segmentation | FailedImage]
    timings_ms: TimingsMs


class Figure(BaseModel):
    """A figure from the manifest, measured on the served bytes."""

    name: str
    value: float
    ci_low: float
    ci_high: float
    split: str
    images: int


class OperatingFigure(BaseModel):
    """A detector at its score threshold: the answers that requests get when they name none."""

    score_threshold: float
    metric: Figure = Field(description="of the detections that reach the threshold")
    precision: float = Field(description="share of them that are right at IoU 0.5, all classes together")
    recall: float = Field(description="share of true objects that they find")
    f1: float


class BatchFigure(BaseModel):
    batch_size: int
    p50_ms: float
    p99_ms: float
    images_per_s: float


class SpeedFigure(BaseModel):
    """How many times as fast one variant is as another; both were timed in turns."""

    variant: str
    against: str
    ratio: float = Field(description="above 1: faster than `against`")
    ci_low: float
    ci_high: float
    confidence: float = Field(description="of the interval")
    rounds: int
    text: str = Field(description="the same in words: no faster where the interval does not exclude 1")
    measured: Literal["here", "at export"]


State = Literal["building", "loading", "warming", "ready", "failed", "unloading", "quarantined"]


class InstanceInfo(BaseModel):
    """A version on one device."""

    device: str
    state: State
    reason: str = Field(description="why it is not ready there; empty when it is")
    variant: str
    backend: str
    rung: int = Field(description="of the version's ladder; 0 answers best")


class EngineInfo(BaseModel):
    """A TensorRT plan of a version on one device, on its way or serving."""

    device: str
    variant: str = Field(description="empty where the reason concerns all of them")
    state: Literal["waiting", "building", "ready", "failed", "missing"]
    stage: str = Field(description="of a build: reading, building, measuring, storing")
    progress: float = Field(description="share of the stage that is done")
    plan: str = Field(description="what it is made for: GPU, TensorRT, digest of its key")
    reason: str
    images_per_s: float = Field(description="measured on this kind of device, best batch size; 0 until it is ready")


class VersionInfo(BaseModel):
    version: str
    state: State = Field(
        description="of the instance that is furthest: ready when one device serves it; quarantined: it killed "
        "workers or failed requests here"
    )
    reason: str = Field(description="why it is not ready; empty when it is")
    notice: str = Field(description="its files were removed or replaced while it serves; empty while they are the same")
    variant: str
    device: str = Field(description="devices that have it or are loading it, separated by commas")
    instances: list[InstanceInfo]
    engines: list[EngineInfo]
    on_demand: bool = Field(description="loaded by requests, unloaded when others need its place")
    load_seconds: float | None = Field(description="its last load took, warm-up included; null before the first")
    digest: str = Field(description="SHA-256 of the manifest")
    signed_by: str | None = Field(description="id of the trusted key, or `unsigned`; null where nothing was verified")
    weights: str | None = Field(description="sha256:… of the checkpoint; `random` for an untrained network")
    batchable: bool = Field(description="false: images are never run together, because they would change each other")
    judged: bool = Field(description="false: whether answers are right was never measured, only that variants agree")
    metric: Figure | None = Field(description="over all detections, whatever their score; null when not judged")
    operating_point: OperatingFigure | None = Field(
        description="of detectors and classifiers of several labels; null when not judged"
    )
    latency: list[BatchFigure]
    choice: str = Field(description="why this variant serves where others could; empty where TensorRT serves")
    speeds: list[SpeedFigure] = Field(description="the accepted variants in pairs, by which the server chooses")


class CanaryInfo(BaseModel):
    version: str
    share: float = Field(description="of the requests that name neither version nor label")


class ShadowInfo(BaseModel):
    version: str
    sample: float = Field(description="of the images that stable answered")


class ServingInfo(BaseModel):
    """The document of desired state, `serving.json`."""

    generation: int = Field(description="of the document that rules; 0: none does")
    policy: Literal["follow", "hold"] = Field(description="stable: the newest accepted version, or the one named")
    canary: CanaryInfo | None
    shadow: ShadowInfo | None = Field(description="asked about answered images as well; nobody gets its answers")
    rollout: str = Field(description="where an automatic rollout stands; empty without one")
    objective_ms: float | None = Field(description="of requests without a deadline; null: the server's objective")
    reason: str = Field(description="why it was written")
    problem: str = Field(description="why a newer document does not rule; empty where it does")


class ModelInfo(BaseModel):
    name: str
    task: Literal["classify", "detect", "segment", "segment-instances"] | None
    labels: dict[str, str] = Field(description="traffic labels and the versions they name")
    class_labels: list[str]
    default_version: str | None
    serving: ServingInfo | None = Field(description="desired state; null without a document")
    versions: list[VersionInfo]


class ModelList(BaseModel):
    models: list[ModelInfo]


class Health(BaseModel):
    status: Literal["ok", "unavailable"]
    reason: str


_PARAMETERS: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("top_k", {"type": "integer", "minimum": 1}, "classify: most classes answered"),
    (
        "score_threshold",
        {"type": "number", "minimum": 0, "maximum": 1},
        "detect, segment-instances, and classify with several labels: lowest score answered",
    ),
    ("max_detections", {"type": "integer", "minimum": 1}, "detect, segment-instances: most objects answered"),
    ("mask_format", {"enum": ["rle", "png", "polygon", "none"]}, "segment, segment-instances: how masks are written"),
    ("deadline_ms", {"type": "number", "minimum": 0}, "answer within this time or 504"),
    ("variant", {"type": "string"}, "pins the variant; any that is loaded"),
    ("allow_cheaper", {"type": "boolean"}, "false: never a cheaper variant, however long the wait"),
)
_PROBLEM_STATUSES = (400, 401, 403, 404, 413, 415, 422, 429, 500, 503, 504)


def predict_operation(path_parameters: tuple[str, ...]) -> dict[str, Any]:
    """The OpenAPI operation of a predict path; its component schemas come from `PredictAnswer` and `Problem`."""
    names = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in path_parameters]
    query = [
        {"name": name, "in": "query", "required": False, "schema": schema, "description": description}
        for name, schema, description in _PARAMETERS
    ]
    priority = {
        "name": "X-Priority",
        "in": "header",
        "required": False,
        "schema": {"enum": ["high", "normal", "low"]},
        "description": "order among requests that are due within a second of each other; low is refused first",
    }
    routing_key = {
        "name": "X-Routing-Key",
        "in": "header",
        "required": False,
        "schema": {"type": "string"},
        "description": "requests of one key stay with stable or with the canary; without it each request is on its own",
    }
    binary = {"schema": {"type": "string", "format": "binary"}}
    problem = {
        "description": "Problem",
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    return {
        "summary": "Predict",
        "operationId": "predict_" + "_".join(path_parameters),
        "tags": ["predict"],
        "parameters": [*names, *query, priority, routing_key],
        "requestBody": {
            "required": True,
            "content": {
                **dict.fromkeys(RAW_TYPES, binary),
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "properties": {"image": {"type": "array", "items": binary["schema"]}},
                        "required": ["image"],
                    }
                },
                "application/json": {
                    "schema": {
                        "type": "object",
                        "additionalProperties": False,
                        "properties": {
                            "images": {
                                "type": "array",
                                "minItems": 1,
                                "items": {"type": "object", "properties": {"b64": {"type": "string"}}},
                            },
                            "parameters": {"type": "object"},
                        },
                        "required": ["images"],
                    }
                },
            },
        },
        "responses": {
            "200": {
                "description": "Predictions, one per image",
                "headers": {
                    "X-Saccade-Rung": {
                        "description": "with a ladder: which of its variants answered; 0 is the best",
                        "schema": {"type": "integer", "minimum": 0},
                    }
                },
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/PredictAnswer"}}},
            },
            **{str(status): problem for status in _PROBLEM_STATUSES},
        },
    }
