"""What `make bench-gpu` times. Promises: whatever runs behind it, one call is one batch to its end.

- backend: the server's own backend, images in host memory to answers in host memory;
- direct: the plan alone on tensors that stay on the device, as TensorRT's own tools time it: the bare limit;
- torch-compile: the same deploy module in torch, compiled, under autocast.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from saccade.service.backends.base import Backend, LoadRequest
from saccade.service.backends.registry import load_backend
from tests.load.gpu_networks import BenchNetwork

Images = NDArray[np.uint8]


class Subject(Protocol):
    """An opened network. Not thread-safe."""

    def run(self, images: Images) -> float | None:
        """One batch to its end. The seconds on the device, None where the runtime does not tell."""

    def flow(self, images: Images, seconds: float) -> float:
        """Images per second with as many batches in flight as the runtime takes."""

    def close(self) -> None: ...


def turns(run: Callable[[], object], batch_size: int, seconds: float) -> float:
    """Images per second of runs one after the other."""
    start_s = time.perf_counter()
    count = 0
    while count == 0 or time.perf_counter() - start_s < seconds:
        run()
        count += 1
    return count * batch_size / (time.perf_counter() - start_s)


class BackendSubject:
    """Any backend of the server."""

    def __init__(self, backend: Backend) -> None:
        self._backend: Any = backend
        self._is_pipelined = hasattr(backend, "staging")
        # What ONNX Runtime's backend tells includes the launches of its kernels, one by one.
        self._tells_device_time = backend.provider.startswith("tensorrt")

    @property
    def provider(self) -> str:
        return str(self._backend.provider)

    def run(self, images: Images) -> float | None:
        if not self._is_pipelined:
            self._backend.infer(images)
            return None
        self._backend.staging(len(images))[...] = images
        _, run_s = self._backend.finish(self._backend.start())
        return float(run_s) if self._tells_device_time else None

    def flow(self, images: Images, seconds: float) -> float:
        if not self._is_pipelined:
            return turns(lambda: self._backend.infer(images), len(images), seconds)
        started: deque[int] = deque()
        start_s, done, is_over = time.perf_counter(), 0, False
        while not is_over or started:
            while not is_over and len(started) < self._backend.batches_in_flight:
                self._backend.staging(len(images))[...] = images
                started.append(self._backend.start())
            self._backend.finish(started.popleft())
            done += len(images)
            is_over = time.perf_counter() - start_s >= seconds
        return done / (time.perf_counter() - start_s)

    def close(self) -> None:
        self._backend.close()


def open_backend(name: str, request: LoadRequest) -> BackendSubject:
    """Raises BackendError or RepositoryError with what to change."""
    return BackendSubject(load_backend(name, request))


class DirectPlan:
    """A plan through TensorRT's own API, its tensors torch's and on the device."""

    def __init__(self, plan: Path, runtime: str, *, cuda_graph: bool) -> None:
        """Raises RuntimeError when this TensorRT does not open the plan."""
        import importlib

        import torch

        self._torch: Any = torch
        self._tensorrt: Any = importlib.import_module(runtime)
        self._logger = self._tensorrt.Logger(self._tensorrt.Logger.ERROR)
        self._runtime = self._tensorrt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(plan.read_bytes())
        if self._engine is None:
            raise RuntimeError(f"{runtime} {self._tensorrt.__version__} does not open {plan}")
        self._context = self._engine.create_execution_context()
        self._stream = torch.cuda.Stream()
        self._cuda_graph = cuda_graph
        self._graph: Any = None
        self._batch_size = 0
        self._tensors: dict[str, Any] = {}

    def layer_information(self) -> str:
        """The inspector's JSON."""
        inspector = self._engine.create_engine_inspector()
        inspector.execution_context = self._context  # else formats of dynamic shapes are not said
        return str(inspector.get_engine_information(self._tensorrt.LayerInformationFormat.JSON))

    def run(self, images: Images) -> float | None:
        if len(images) != self._batch_size:
            self._place(images)
        before, after = (self._torch.cuda.Event(enable_timing=True) for _ in range(2))
        before.record(self._stream)
        self._launch()
        after.record(self._stream)
        self._stream.synchronize()
        return float(before.elapsed_time(after)) / 1e3

    def flow(self, images: Images, seconds: float) -> float:
        if len(images) != self._batch_size:
            self._place(images)

        def many() -> None:
            for _ in range(8):  # the device has work while Python goes round
                self._launch()
            self._stream.synchronize()

        return turns(many, 8 * len(images), seconds)

    def close(self) -> None:
        self._stream.synchronize()
        self._graph = None
        self._tensors.clear()
        self._context = None
        self._engine = None

    def _launch(self) -> None:
        if self._graph is not None:
            with self._torch.cuda.stream(self._stream):
                self._graph.replay()
        elif not self._context.execute_async_v3(self._stream.cuda_stream):
            raise RuntimeError(f"{self._tensorrt.__name__} failed on a batch of {self._batch_size}")

    def _place(self, images: Images) -> None:
        """Tensors for this batch size, a run of it, and its graph. The images are copied once."""
        torch, trt = self._torch, self._tensorrt
        self._stream.synchronize()
        self._graph = None
        self._batch_size = len(images)
        self._tensors = {"images": torch.from_numpy(np.ascontiguousarray(images)).cuda()}
        self._context.set_input_shape("images", tuple(images.shape))
        for index in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(index)
            if self._engine.get_tensor_mode(name) == trt.TensorIOMode.OUTPUT:
                kind = getattr(torch, _TORCH_TYPES[self._engine.get_tensor_dtype(name).name])
                shape = tuple(self._context.get_tensor_shape(name))
                self._tensors[name] = torch.empty(shape, dtype=kind, device="cuda")
        for name, tensor in self._tensors.items():
            self._context.set_tensor_address(name, tensor.data_ptr())
        torch.cuda.synchronize()
        self._launch()  # before a capture: TensorRT sets itself up in the first run of a shape
        self._stream.synchronize()
        if self._cuda_graph:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=self._stream):
                self._launch()
            self._graph = graph


_TORCH_TYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "INT8": "int8",
    "BOOL": "bool",
}


class TorchSubject:
    """The deploy module of a network, compiled; `fp16` runs it under autocast, channels last."""

    def __init__(self, network: BenchNetwork, variant: str) -> None:
        import torch

        from tests.load.gpu_prepare import bench_deployable, bench_recipe

        self._torch: Any = torch
        module = bench_deployable(network, bench_recipe(network))[0].module
        self._module = module.cuda().to(memory_format=torch.channels_last)
        self._compiled: Any = torch.compile(self._module, dynamic=False)
        self._is_half = variant == "fp16"
        self._pinned: Any = None

    def run(self, images: Images) -> float | None:
        torch = self._torch
        if self._pinned is None or len(self._pinned) != len(images):
            self._pinned = torch.empty(images.shape, dtype=torch.uint8, pin_memory=True)
        self._pinned.numpy()[...] = images
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        with torch.inference_mode(), torch.autocast("cuda", torch.float16, enabled=self._is_half):
            given = self._pinned.cuda(non_blocking=True)
            before.record()
            answers = self._compiled(given)
            after.record()
            _ = [answer.cpu() for answer in answers]
        return float(before.elapsed_time(after)) / 1e3

    def flow(self, images: Images, seconds: float) -> float:
        return turns(lambda: self.run(images), len(images), seconds)

    def close(self) -> None:
        self._compiled = None
        self._module = None
        self._torch.compiler.reset()
        self._torch.cuda.empty_cache()
