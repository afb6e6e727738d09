"""Plans for the simulated TensorRT, laid out on disk as real ones. Their engines answer as ONNX Runtime does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from saccade.models.contract.plans import PLAN_FILE, PLAN_RECORD, PlanKey, plan_record_bytes
from saccade.models.contract.specs import TensorSpec
from saccade.service.backends.base import LoadRequest
from saccade.service.backends.tensorrt_backend import TensorRtBackend
from tests.support.plan_records import record
from tests.support.simulated_cuda import SimulatedCuda
from tests.support.simulated_tensorrt import Design, SimulatedTensorRt, Tensor

SIZES = (1, 2, 3, 4, 5)
_NAMES = {"uint8": "UINT8", "float32": "FLOAT", "int32": "INT32"}


def tensor_of(spec: TensorSpec, *, is_input: bool = False) -> Tensor:
    return Tensor(spec.name, _NAMES[spec.dtype], (-1, *spec.shape), is_input)


def design_of(request: LoadRequest, **changes: Any) -> Design:
    """An engine that runs the request's file with ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(request.file, options, providers=["CPUExecutionProvider"])
    names = [spec.name for spec in request.outputs]

    def run(images: np.ndarray) -> Sequence[np.ndarray]:
        return list(session.run(names, {request.input.name: images}))

    tensors = (tensor_of(request.input, is_input=True), *map(tensor_of, request.outputs))
    return Design(tensors, changes.pop("function", run), **changes)


def key_of(request: LoadRequest, tensorrt: SimulatedTensorRt, **changes: Any) -> PlanKey:
    fields = {
        "onnx_sha256": request.sha256 or "0" * 64,
        "external_sha256": tuple((path.name, sha256) for path, sha256 in request.external_data),
        "runtime": tensorrt.__name__,
        "runtime_version": tensorrt.__version__,
        "capabilities": ("SM90",),
        "allowed_batch_sizes": SIZES,
    }
    return PlanKey.model_validate({**fields, **changes})


def put_plan(directory: Path, key: PlanKey, plan: bytes) -> Path:
    """The plan's own directory, as the store lays it out."""
    place = directory / "digits" / "1" / "fp16" / key.place
    place.mkdir(parents=True)
    made = record(plan, variant="fp16", key=key, dtypes={"half": 3})
    (place / PLAN_FILE).write_bytes(plan)
    (place / PLAN_RECORD).write_bytes(plan_record_bytes(made))
    return place


def open_simulated(
    request: LoadRequest, directory: Path, cuda: SimulatedCuda, tensorrt: SimulatedTensorRt | None = None
) -> TensorRtBackend:
    """A backend on a fresh plan of the request's file."""
    module = SimulatedTensorRt(cuda) if tensorrt is None else tensorrt
    place = put_plan(directory, key_of(request, module), module.plan_of(design_of(request)))
    return TensorRtBackend(request_for_plan(request, place), tensorrt=module, cuda=cuda)


def request_for_plan(request: LoadRequest, place: Path, **changes: Any) -> LoadRequest:
    fields = {name: getattr(request, name) for name in LoadRequest.__slots__}
    given = {"device": "cuda:0", "plan_dir": place, "allowed_batch_sizes": SIZES}
    return LoadRequest(**{**fields, **given, **changes})
