"""A simulated GPU with its TensorRT and one small network, for tests of the backend."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saccade.models.contract.specs import TensorSpec
from saccade.service.backends.base import LoadRequest, UInt8Array
from saccade.service.backends.tensorrt_backend import TensorRtBackend
from saccade.service.errors import PlanRefused
from tests.support.simulated_cuda import SimulatedCuda
from tests.support.simulated_plans import key_of, put_plan, request_for_plan, tensor_of
from tests.support.simulated_tensorrt import Design, SimulatedTensorRt

IMAGES = TensorSpec(name="images", dtype="uint8", shape=(2, 2, 3))
OUTPUTS = (
    TensorSpec(name="sums", dtype="int32", shape=()),
    TensorSpec(name="pixels", dtype="float32", shape=(3,)),
)
REQUEST = LoadRequest(Path("model.onnx"), IMAGES, OUTPUTS, "cuda:0", 1, False, "a" * 64)


def answers(images: np.ndarray) -> list[np.ndarray]:
    return [images.reshape(len(images), -1).sum(1, np.int32), images[:, 0, 0].astype(np.float32)]


def design(**changes: Any) -> Design:
    tensors = (tensor_of(IMAGES, is_input=True), *map(tensor_of, OUTPUTS))
    return Design(**{"tensors": tensors, "function": answers, **changes})


@dataclass
class Machine:
    """A simulated device with its TensorRT."""

    directory: Path
    cuda: SimulatedCuda
    tensorrt: SimulatedTensorRt

    def put(self, made: Design, **key: Any) -> Path:
        return put_plan(self.directory, key_of(REQUEST, self.tensorrt, **key), self.tensorrt.plan_of(made))

    def open(self, made: Design | None = None, **changes: Any) -> TensorRtBackend:
        return self.open_at(self.put(design() if made is None else made), **changes)

    def open_at(self, place: Path, **changes: Any) -> TensorRtBackend:
        return TensorRtBackend(request_for_plan(REQUEST, place, **changes), tensorrt=self.tensorrt, cuda=self.cuda)

    def refused(self, place: Path, **changes: Any) -> str:
        """What the refusal says; the plan was not opened and nothing is left."""
        with pytest.raises(PlanRefused) as caught:
            self.open_at(place, **changes)
        assert self.tensorrt.opened == []
        self.cuda.assert_clean()
        return str(caught.value)


def batch(size: int, seed: int = 0) -> UInt8Array:
    return np.random.default_rng((size, seed)).integers(0, 256, (size, *IMAGES.shape), np.uint8)


def same(found: Any, images: UInt8Array) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(found, answers(images), strict=True))


def rtx(cuda: SimulatedCuda) -> SimulatedTensorRt:
    return SimulatedTensorRt(cuda, name="tensorrt_rtx", version="1.7.1.116", is_rtx=True)
