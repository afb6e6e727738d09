"""Opens a checked plan, and refuses an engine without the manifest's tensors before it gets any memory."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import structlog

from saccade.models.contract.specs import TensorSpec
from saccade.service.backends.base import LoadRequest
from saccade.service.backends.tensorrt.module import KeptLog, TensorRt
from saccade.service.errors import OutOfDeviceMemory, PlanRefused, RuntimeMissing

log = structlog.get_logger()

# The manifests' names of TensorRT's element types. TensorRT accepts uint8 network inputs.
_DTYPES = {"UINT8": "uint8", "FLOAT": "float32", "INT32": "int32"}
_OUT_OF_MEMORY = re.compile(r"out\s?of\s?memory|cudaErrorMemoryAllocation|cudaError 2\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class EngineTensor:
    name: str
    dtype: str  # the manifests' name, or TensorRT's in lower case where they have none
    shape: tuple[int, ...]  # with the batch; -1 where it is not fixed
    is_input: bool


@dataclass(frozen=True, slots=True)
class EngineTensors:
    """An engine's tensors, sorted by how saccade uses them."""

    sized_by_data: tuple[str, ...]  # answers whose shape is known only once they are computed
    unread: tuple[str, ...]  # outputs that are not part of the manifest's answer but need memory


def open_engine(tensorrt: TensorRt, plan: bytes, kept: KeptLog, rebuild: str) -> tuple[Any, Any]:
    """(runtime, engine); the runtime must outlive the engine. `rebuild` is the command that makes another plan.

    Raises PlanRefused, RuntimeMissing when the driver is too old for the plan, OutOfDeviceMemory.
    """
    runtime = tensorrt.Runtime(kept.logger)
    _ensure_valid(tensorrt, runtime, plan, kept, rebuild)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        reason = kept.last()
        if is_out_of_memory(reason):
            raise OutOfDeviceMemory(f"TensorRT has no memory to open the plan: {reason}")
        raise PlanRefused(f"TensorRT cannot open the plan: {reason}; {rebuild}")
    return runtime, engine


def tensors_of(engine: Any, tensorrt: TensorRt) -> tuple[EngineTensor, ...]:
    """Inputs and outputs in the engine's order."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    return tuple(
        EngineTensor(
            name,
            _dtype(engine.get_tensor_dtype(name)),
            tuple(engine.get_tensor_shape(name)),
            engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT,
        )
        for name in names
    )


def checked_tensors(found: tuple[EngineTensor, ...], request: LoadRequest, rebuild: str) -> EngineTensors:
    """Compares an engine with the request. Raises PlanRefused when a declared tensor is absent or different."""
    inputs = [tensor for tensor in found if tensor.is_input]
    outputs = {tensor.name: tensor for tensor in found if not tensor.is_input}
    fits = len(inputs) == 1 and inputs[0].name == request.input.name and _agrees(inputs[0], request.input, fixed=True)
    for spec in request.outputs:
        fits = fits and spec.name in outputs and _agrees(outputs[spec.name], spec, fixed=False)
    if not fits:
        raise PlanRefused(
            f"the plan has {_listed(inputs)} -> {_listed(list(outputs.values()))}, the manifest declares "
            f"{_declared(request.input)} -> {', '.join(map(_declared, request.outputs))}; {rebuild}"
        )
    names = [spec.name for spec in request.outputs]
    return EngineTensors(
        sized_by_data=tuple(name for name in names if -1 in outputs[name].shape[1:]),
        unread=tuple(name for name in outputs if name not in names),
    )


def is_out_of_memory(text: str) -> bool:
    """Whether a message of TensorRT reports exhausted memory, its own or CUDA's (error 2)."""
    return bool(_OUT_OF_MEMORY.search(text))


def _ensure_valid(tensorrt: TensorRt, runtime: Any, plan: bytes, kept: KeptLog, rebuild: str) -> None:
    """Lets TensorRT judge the plan's header where it can; other versions find faults while they open the plan."""
    if not hasattr(runtime, "get_engine_validity"):
        return
    validity, diagnostics = runtime.get_engine_validity(plan[: runtime.engine_header_size])
    if validity == tensorrt.EngineValidity.VALID:
        return
    members = tensorrt.EngineInvalidityDiagnostics.__members__
    named = [name for name, flag in members.items() if int(diagnostics) & _bit(flag)]
    said = ", ".join(name.lower().replace("_", " ") for name in named) or kept.last()
    if validity == tensorrt.EngineValidity.SUBOPTIMAL:
        log.warning("plan_suboptimal", reason=said)
        return
    if {"OLD_CUDA_DRIVER", "OLD_CUDA_RUNTIME", "CUDA_ERROR"} & set(named):
        raise RuntimeMissing(f"{tensorrt.__name__} {tensorrt.__version__} cannot run here: {said}; update the driver")
    if named == ["INSUFFICIENT_GPU_MEMORY"]:
        raise OutOfDeviceMemory(f"the plan needs more memory than this GPU has: {said}")
    raise PlanRefused(f"TensorRT calls the plan invalid: {said}; {rebuild}")


def _bit(flag: Any) -> int:
    return int(getattr(flag, "value", flag))


def _dtype(dtype: Any) -> str:
    name = str(dtype.name)
    return _DTYPES.get(name, name.lower())


def _agrees(tensor: EngineTensor, spec: TensorSpec, *, fixed: bool) -> bool:
    rest = tensor.shape[1:]
    if tensor.dtype != spec.dtype or len(rest) != len(spec.shape):
        return False
    return all(found in ((side,) if fixed else (side, -1)) for found, side in zip(rest, spec.shape, strict=True))


def _listed(tensors: list[EngineTensor]) -> str:
    return ", ".join(f"{tensor.name} {tensor.dtype}{list(tensor.shape[1:])}" for tensor in tensors) or "nothing"


def _declared(spec: TensorSpec) -> str:
    return f"{spec.name} {spec.dtype}{list(spec.shape)}"
