"""Finds backends by name and for variants, and imports a backend's runtime only when it is chosen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from saccade.models.contract.manifest import Variant
from saccade.service.backends.base import Backend, LoadRequest
from saccade.service.backends.openvino_backend import why_absent
from saccade.service.errors import BackendError
from saccade.service.repository.variants import NOTHING_ABSENT, Absent


def load_backend(name: str, request: LoadRequest) -> Backend:
    """Opens one variant. Raises BackendError or RepositoryError with what to change."""
    # Imported here because each imports a runtime of its own, and a worker needs exactly one of them.
    if name == "onnxruntime" and request.device != "cpu":
        from saccade.service.backends.onnxruntime_cuda import OnnxRuntimeCudaBackend

        return OnnxRuntimeCudaBackend(request)
    if name == "onnxruntime":
        from saccade.service.backends.onnxruntime_backend import OnnxRuntimeBackend

        return OnnxRuntimeBackend(request)
    if name == "openvino":
        from saccade.service.backends.openvino_backend import OpenVinoBackend

        return OpenVinoBackend(request)
    if name == "tensorrt":
        from saccade.service.backends.tensorrt_backend import TensorRtBackend

        return TensorRtBackend(request)
    if name == "fake":
        from saccade.service.backends.fake_backend import FakeBackend

        return FakeBackend(request)
    raise BackendError(f"no backend {name!r}; there are: fake, onnxruntime, openvino, tensorrt")


def backend_name(variant: Variant, setting: str) -> str:
    """The backend that opens a variant's own file, without a TensorRT plan; `setting` is `Settings.backend`."""
    if setting == "fake":
        return setting
    return "openvino" if variant.target == "openvino" else "onnxruntime"


def absent_kinds(setting: str) -> Absent:
    """Kinds of variants that this server cannot run, each with the reason; `setting` is `Settings.backend`."""
    return NOTHING_ABSENT if setting == "fake" else _AbsentKinds(setting)


class _AbsentKinds(Mapping[str, str]):
    """Finds a reason when it is asked for: only versions that have such a variant pay for trying a runtime."""

    _KINDS: ClassVar = {f"openvino/{precision}": precision for precision in ("fp32", "bf16", "int8")}

    def __init__(self, setting: str) -> None:
        self._setting = setting

    def __getitem__(self, kind: str) -> str:
        precision = self._KINDS[kind]
        reason = why_absent(precision) if self._setting == "auto" else f"SACCADE_BACKEND is {self._setting}"
        if not reason:
            raise KeyError(kind)
        return reason

    def __iter__(self) -> Iterator[str]:
        return (kind for kind in self._KINDS if kind in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)
