"""Finds backends by name and imports a backend's runtime only when it is chosen."""

from __future__ import annotations

from saccade.service.backends.base import Backend, LoadRequest
from saccade.service.errors import BackendError


def load_backend(name: str, request: LoadRequest) -> Backend:
    """Opens one variant. Raises BackendError or RepositoryError with what to change."""
    # Imported here because each imports a runtime of its own, and a worker needs exactly one of them.
    if name == "onnxruntime" and request.device != "cpu":
        from saccade.service.backends.onnxruntime_cuda import OnnxRuntimeCudaBackend

        return OnnxRuntimeCudaBackend(request)
    if name == "onnxruntime":
        from saccade.service.backends.onnxruntime_backend import OnnxRuntimeBackend

        return OnnxRuntimeBackend(request)
    if name == "tensorrt":
        from saccade.service.backends.tensorrt_backend import TensorRtBackend

        return TensorRtBackend(request)
    if name == "fake":
        from saccade.service.backends.fake_backend import FakeBackend

        return FakeBackend(request)
    raise BackendError(f"no backend {name!r}; there are: fake, onnxruntime, tensorrt")
