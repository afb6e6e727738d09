"""JSON of the Open Inference Protocol, for its routes and the OpenAPI document."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class OipError(BaseModel):
    error: str


class ServerMetadata(BaseModel):
    name: str
    version: str
    extensions: list[str]


class Live(BaseModel):
    live: bool


class ServerReady(Live):
    ready: bool


class ModelReady(BaseModel):
    name: str
    ready: bool


class TensorMetadata(BaseModel):
    name: str
    datatype: str
    shape: list[int] = Field(description="-1 for the batch")


class ModelMetadata(BaseModel):
    name: str
    versions: list[str] = Field(description="those that are ready")
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ConfiguredOutput(BaseModel):
    name: str
    data_type: str
    dims: list[int] = Field(description="without the batch")


class ConfiguredInput(ConfiguredOutput):
    format: Literal["FORMAT_NHWC"]


class DynamicBatching(BaseModel):
    preferred_batch_size: list[int]


class ModelConfiguration(BaseModel):
    name: str
    platform: str
    backend: str
    max_batch_size: int
    input: list[ConfiguredInput]
    output: list[ConfiguredOutput]
    dynamic_batching: DynamicBatching


class Duration(BaseModel):
    count: int
    ns: int


class InferenceStatistics(BaseModel):
    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration
    cache_hit: Duration
    cache_miss: Duration


class VersionStatistics(BaseModel):
    name: str
    version: str
    inference_count: int = Field(description="images")
    execution_count: int = Field(description="batches")
    inference_stats: InferenceStatistics
    batch_stats: list[Any]


class Statistics(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    model_stats: list[VersionStatistics]


class IndexRequest(BaseModel):
    ready: bool = Field(False, description="only versions that are ready")


class IndexEntry(BaseModel):
    name: str
    version: str
    state: Literal["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]
    reason: str


class Nothing(BaseModel):
    """An empty object."""


class RequestParameters(BaseModel):
    timeout: int = Field(0, ge=0, description="microseconds until the deadline; 0: the server's default")
    priority: int = Field(0, ge=0, description="0: the default, 1: high, 2: normal, beyond: low")
    binary_data_output: bool = Field(False, description="outputs are binary where they do not say otherwise")


class InputTensor(BaseModel):
    name: str
    datatype: Literal["UINT8", "BYTES"] = Field(description="pixels, or encoded pictures")
    shape: list[int] = Field(description="[images, height, width, 3] of UINT8, [images] or [images, 1] of BYTES")
    parameters: dict[str, Any] = Field({}, description="binary_data_size where the tensor stands behind the JSON")
    data: list[Any] | None = Field(None, description="flat or nested: pixels, or base64 of pictures")


class WantedTensor(BaseModel):
    name: str
    parameters: dict[str, Any] = Field({}, description="binary_data; classification: of a classifier's scores")


class InferRequest(BaseModel):
    id: str = ""
    parameters: RequestParameters | None = None
    inputs: list[InputTensor] = Field(min_length=1, max_length=1)
    outputs: list[WantedTensor] = Field([], description="none: all of them")


class OutputTensor(BaseModel):
    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] | None = Field(None, description="binary_data_size where it stands behind the JSON")
    data: list[Any] | None = None


class InferAnswer(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    model_name: str
    model_version: str
    id: str | None = Field(None, description="as the request had it")
    parameters: dict[str, Any] | None = Field(None, description="warning: which parts of a damaged picture may be lost")
    outputs: list[OutputTensor]
