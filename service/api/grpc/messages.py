"""The protocol's messages, made from tables. Promises: wire-compatible with Triton's; no generated code to keep.

Fields are named as in Triton's and KServe's grpc_service.proto, which is where their numbers come from; what this
server has no use for is left out, and protobuf keeps or ignores it.
"""

from __future__ import annotations

from functools import cache

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

_TENSOR = "name:1 datatype:2 shape:3:int64* parameters:4:{InferParameter} contents:5:InferTensorContents"
_NAMED = "name:1 version:2"
_DURATIONS = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss")

# "field:number:type"; without a type it is a string. * repeats, {} maps from strings, | fields are alternatives.
_OIP = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "live:1:bool",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "ready:1:bool",
    "ModelReadyRequest": _NAMED,
    "ModelReadyResponse": "ready:1:bool",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "name:1 version:2 extensions:3:string*",
    "ModelMetadataRequest": _NAMED,
    "TensorMetadata": "name:1 datatype:2 shape:3:int64*",
    "ModelMetadataResponse": "name:1 versions:2:string* platform:3 inputs:4:TensorMetadata* outputs:5:TensorMetadata*",
    "ModelConfigRequest": _NAMED,
    "ModelInput": "name:1 data_type:2:int32 format:3:int32 dims:4:int64*",
    "ModelOutput": "name:1 data_type:2:int32 dims:3:int64*",
    "ModelConfig": "name:1 platform:2 max_batch_size:4:int32 input:5:ModelInput* output:6:ModelOutput* backend:17",
    "ModelConfigResponse": "config:1:ModelConfig",
    "InferParameter": "bool_param:1:bool| int64_param:2:int64| string_param:3:string| double_param:4:double| "
    "uint64_param:5:uint64|",
    "InferTensorContents": "bool_contents:1:bool* int_contents:2:int32* int64_contents:3:int64* "
    "uint_contents:4:uint32* uint64_contents:5:uint64* fp32_contents:6:float* fp64_contents:7:double* "
    "bytes_contents:8:bytes*",
    "InferInputTensor": _TENSOR,
    "InferRequestedOutputTensor": "name:1 parameters:2:{InferParameter}",
    "ModelInferRequest": "model_name:1 model_version:2 id:3 parameters:4:{InferParameter} inputs:5:InferInputTensor* "
    "outputs:6:InferRequestedOutputTensor* raw_input_contents:7:bytes*",
    "InferOutputTensor": _TENSOR,
    "ModelInferResponse": "model_name:1 model_version:2 id:3 parameters:4:{InferParameter} "
    "outputs:5:InferOutputTensor* raw_output_contents:6:bytes*",
    "ModelStreamInferResponse": "error_message:1 infer_response:2:ModelInferResponse",
    "ModelStatisticsRequest": _NAMED,
    "StatisticDuration": "count:1:uint64 ns:2:uint64",
    "InferStatistics": " ".join(f"{name}:{number}:StatisticDuration" for number, name in enumerate(_DURATIONS, 1)),
    "ModelStatistics": "name:1 version:2 last_inference:3:uint64 inference_count:4:uint64 execution_count:5:uint64 "
    "inference_stats:6:InferStatistics",
    "ModelStatisticsResponse": "model_stats:1:ModelStatistics*",
    "RepositoryIndexRequest": "repository_name:1 ready:2:bool",
    "ModelIndex": "name:1 version:2 state:3 reason:4",
    "RepositoryIndexResponse": "models:1:ModelIndex*",
    "RepositoryModelLoadRequest": "repository_name:1 model_name:2",
    "RepositoryModelLoadResponse": "",
    "RepositoryModelUnloadRequest": "repository_name:1 model_name:2",
    "RepositoryModelUnloadResponse": "",
}
_HEALTH = {"HealthCheckRequest": "service:1", "HealthCheckResponse": "status:1:int32"}

OIP_SERVICE = "inference.GRPCInferenceService"
HEALTH_SERVICE = "grpc.health.v1.Health"
OIP_METHODS = tuple(name.removesuffix("Request") for name in _OIP if name.endswith("Request"))


def _field(message: DescriptorProto, package: str, text: str) -> None:
    name, number, kind = (*text.split(":"), "string")[:3]
    field = message.field.add(name=name, number=int(number), label=FieldDescriptorProto.LABEL_OPTIONAL)
    if kind.endswith("|"):
        if not message.oneof_decl:
            message.oneof_decl.add(name="alternatives")
        field.oneof_index = 0
    if kind.endswith("*") or kind.startswith("{"):
        field.label = FieldDescriptorProto.LABEL_REPEATED
    plain = kind.strip("*|{}")
    if kind.startswith("{"):
        entry = message.nested_type.add(name=name.title() + "Entry")
        entry.options.map_entry = True
        _field(entry, package, "key:1")
        _field(entry, package, f"value:2:{plain}")
        plain = f"{message.name}.{entry.name}"
    number_of_kind = FieldDescriptorProto.Type.DESCRIPTOR.values_by_name.get(f"TYPE_{plain.upper()}")
    if number_of_kind is not None and plain.islower():
        field.type = number_of_kind.number
    else:
        field.type = FieldDescriptorProto.TYPE_MESSAGE
        field.type_name = f".{package}.{plain}"


def _file(name: str, package: str, tables: dict[str, str]) -> FileDescriptorProto:
    file = FileDescriptorProto(name=name, package=package, syntax="proto3")
    for message_name, fields in tables.items():
        message = file.message_type.add(name=message_name)
        for text in fields.split():
            _field(message, package, text)
    return file


def _pool() -> DescriptorPool:
    pool = DescriptorPool()
    oip = _file("open_inference.proto", "inference", _OIP)
    service = oip.service.add(name="GRPCInferenceService")
    for method in OIP_METHODS:
        service.method.add(
            name=method, input_type=f".inference.{method}Request", output_type=f".inference.{method}Response"
        )
    pool.Add(oip)
    health = _file("health.proto", "grpc.health.v1", _HEALTH)
    health.service.add(name="Health").method.add(
        name="Check",
        input_type=".grpc.health.v1.HealthCheckRequest",
        output_type=".grpc.health.v1.HealthCheckResponse",
    )
    pool.Add(health)
    return pool


POOL = _pool()


@cache
def message_class(name: str, package: str = "inference") -> type[Message]:
    found: type[Message] = GetMessageClass(POOL.FindMessageTypeByName(f"{package}.{name}"))
    return found
