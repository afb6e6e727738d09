"""JSON of the REST API, for its OpenAPI document and the routes that are not hot; a golden holds its shapes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: str = Field(description="urn:saccade:problem: and the title in lower case, with hyphens")
    title: str = Field(description="the same words for every problem of a kind")
    status: int
    detail: str = Field(description="what was given, what is allowed, what to change")
    request_id: str


class ImageInput(BaseModel):
    model_config = ConfigDict(extra="forbid")

    b64: str = Field(
        description="base64 of an encoded picture; also URL-safe, unpadded, wrapped, or as a data URI",
        json_schema_extra={"contentEncoding": "base64"},
    )


class Samples(BaseModel):
    images: list[ImageInput]


class ShadowDisagreement(BaseModel):
    """An image to which the stable version and its shadow gave different answers."""

    stable: str
    candidate: str
    agreement: float = Field(description="0 to 1")
    stable_said: str
    candidate_said: str
    at: str = Field(description="ISO 8601, UTC")
    request_id: str
    picture: ImageInput | None = Field(description="null unless SACCADE_SHADOW_PICTURES keeps pictures")


class PredictParameters(BaseModel):
    """As in the query, where each must have the same value if it is in both."""

    model_config = ConfigDict(extra="forbid")

    top_k: int | None = Field(None, ge=1, description="classify: most classes answered")
    score_threshold: float | None = Field(
        None,
        ge=0,
        le=1,
        description="detect, segment-instances, and classify with several labels: lowest score answered",
    )
    max_detections: int | None = Field(None, ge=1, description="detect, segment-instances: most objects answered")
    mask_format: Literal["rle", "png", "polygon", "none"] | None = Field(
        None, description="segment, segment-instances: how masks are written"
    )
    encoding: Literal["json", "base64"] | None = Field(None, description="embed: how the vector is written")
    embedding_dtype: Literal["float32", "float16"] | None = Field(
        None, description="embed: type of the vector's numbers, little-endian in base64"
    )
    image_format: Literal["png", "webp", "raw"] | None = Field(
        None, description="image: how the picture is written; raw: its numbers' bytes, rows first, colours last"
    )
    deadline_ms: float | None = Field(None, ge=0, description="answer within this time or 504")
    variant: str | None = Field(None, description="pins the variant; any that is loaded")
    allow_cheaper: bool | None = Field(None, description="false: never a cheaper variant, however long the wait")
    explain: Literal["grid", "png"] | None = Field(
        None, description="adds where the network looked: an 8-bit grid with its place, or a grey PNG over the picture"
    )
    quality: bool | None = Field(None, description="true: the answer says how good the picture is")
    trust: bool | None = Field(None, description="true: adds how unlike the pictures of its export each picture is")


class PredictRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    images: list[ImageInput] = Field(min_length=1)
    parameters: PredictParameters = Field(default_factory=PredictParameters.model_construct)


class FailedImage(BaseModel):
    error: Problem


class ClassScore(BaseModel):
    label: str
    class_id: int
    score: float


class Trust(BaseModel):
    """How unlike the pictures of the version's export the picture is: 95 of 100 pictures like those are familiar."""

    score: float = Field(description="distance of its features, from 0; scaled by the threshold")
    threshold: float = Field(description="scores above it are unfamiliar")
    familiar: bool = Field(description="false: the network was made for other pictures, so check the answer")


class Explanation(BaseModel):
    """Where the network looked; `grid` with its place, or `png`, as `explain` asks."""

    method: str = Field(description="how it is computed: of the class answered first, of no class, or of the attention")
    rows: int | None = None
    columns: int | None = None
    box: Annotated[list[float], Field(min_length=4, max_length=4)] | None = Field(
        None, description="the grid's x1 y1 x2 y2 in source pixels, beyond the picture's edges where bars were added"
    )
    grid: str | None = Field(None, description="base64 of rows x columns bytes, from 0 to 255 where it looked most")
    png: str | None = Field(
        None, description="base64 of an 8-bit grey PNG that covers the picture, 128 pixels long at most"
    )


class PictureQuality(BaseModel):
    score: float = Field(
        description="0 to 1: sharpness, exposure or size, whichever is lowest, as a share of what is usual among the "
        "pictures that the network was made with"
    )
    reasons: list[str] = Field(description="where the picture is worse than nearly all of them; empty for a good one")


class ReadPicture(BaseModel):
    width: int
    height: int
    warning: str | None = Field(None, description="only where the picture is damaged: why parts of it may be lost")
    explanation: Explanation | None = Field(None, description="only where the request said `explain`")
    quality: PictureQuality | None = Field(None, description="only where it was asked for, or SACCADE_QUALITY says so")
    trust: Trust | None = Field(None, description="only where the request said `trust`")


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


class Vector(BaseModel):
    """A vector of length 1; `values` or `base64`, as `encoding` asks."""

    dim: int
    dtype: Literal["float32", "float16"]
    values: list[float] | None = None
    base64: str | None = Field(None, description="the numbers' bytes, little-endian")


class Embedding(ReadPicture):
    embedding: Vector


class WrittenImage(BaseModel):
    """The picture that the network made, `base64` of a file in `format`."""

    width: int
    height: int
    format: Literal["png", "webp", "raw"]
    base64: str
    dtype: Literal["uint8"] | None = Field(None, description="raw: type of the numbers")
    shape: list[int] | None = Field(None, description="raw: rows, columns and colours")


class WrittenDepth(BaseModel):
    """A number per pixel. Of a PNG's 16-bit samples it is `offset + scale * sample`."""

    width: int
    height: int
    format: Literal["png", "raw"]
    base64: str
    scale: float | None = Field(None, description="png")
    offset: float | None = Field(None, description="png")
    dtype: Literal["float32"] | None = Field(None, description="raw: type of the numbers, little-endian")
    shape: list[int] | None = Field(None, description="raw: rows and columns")


class MadePicture(ReadPicture):
    image: WrittenImage


class MadeDepth(ReadPicture):
    depth: WrittenDepth


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
    # Instances before Detection: generated clients take the first that fits.
    predictions: list[
        Classification | Instances | Detection | Segmentation | Embedding | MadePicture | MadeDepth | FailedImage
    ]
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
    text: str = Field(description="the same in words: not surely faster where the interval does not exclude 1")
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
    judged: bool | None = Field(
        description="false: whether answers are right was never measured, only that variants agree; null: not loaded"
    )
    metric: Figure | None = Field(description="over all detections, whatever their score; null when not judged")
    operating_point: OperatingFigure | None = Field(
        description="of detectors and classifiers of several labels; null when not judged"
    )
    has_report: bool = Field(description="whether its report can be read at …/report")
    gives: list[Literal["explain", "trust"]] = Field(description="what requests may ask for besides the answer")
    has_samples: bool = Field(description="whether pictures travel with it, at …/samples")
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
    problem: str = Field(description="why a newer document or its stable version does not rule; empty where it does")


class ModelInfo(BaseModel):
    name: str
    task: Literal["classify", "detect", "segment", "segment-instances", "embed", "image"] | None
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
