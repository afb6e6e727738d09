"""Finds TensorRT, and keeps what it logs for the message of the error that follows."""

from __future__ import annotations

import importlib
import re
import sys
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from types import ModuleType
from typing import Any, Protocol, get_args

import structlog

from saccade.models.contract.plans import TensorRtName

log = structlog.get_logger()

_RTX = "tensorrt_rtx"
_CAPABILITY = re.compile(r"SM\d{2,3}")
_KEPT_LINES = 20  # TensorRT logs errors in pairs, the cause before the consequence


class TensorRt(Protocol):
    """What `tensorrt` and `tensorrt_rtx` have in common; tests pass a simulation."""

    __name__: str
    __version__: str

    def __getattr__(self, name: str) -> Any: ...


def find_tensorrt(preferred: str | None = None) -> ModuleType | None:
    """The preferred runtime, or else the first one installed; None where there is none."""
    return first_installed(name for name in (preferred, *get_args(TensorRtName)) if name)


def known_capabilities(tensorrt: TensorRt | ModuleType) -> tuple[str, ...]:
    """The compute capabilities that the runtime knows, ascending, as SM90; empty where it does not list them."""
    members = getattr(getattr(tensorrt, "ComputeCapability", None), "__members__", {})
    names = [name for name in members if _CAPABILITY.fullmatch(name)]
    return tuple(sorted(names, key=lambda name: int(name.removeprefix("SM"))))


def why_not_on(tensorrt: TensorRt | ModuleType, capability: str) -> str:
    """Why this runtime serves no GPU of this compute capability; empty where it does, or does not say.

    TensorRT for RTX lists the GPUs that it builds for, and opened no plan of another one on an H200.
    """
    known = known_capabilities(tensorrt)
    if not known or not capability or capability in known:
        return ""
    return f"{tensorrt.__name__} {tensorrt.__version__} does not support {capability}; it knows {', '.join(known)}"


def first_installed(names: Iterable[str]) -> ModuleType | None:
    """The first of these modules that can be imported."""
    for name in dict.fromkeys(names):
        try:
            return importlib.import_module(name) if name != _RTX else _tensorrt_rtx()
        except ImportError:  # a module whose libraries are missing raises it, too
            continue
    return None


def _tensorrt_rtx() -> ModuleType:
    """Imports TensorRT for RTX. Side effect: where only its wheels are installed, makes the module from their bindings.

    NVIDIA's package that brings the module `tensorrt_rtx` is a source distribution, and does no more than this.
    """
    with suppress(ImportError):
        return importlib.import_module(_RTX)
    bindings = importlib.import_module(f"{_RTX}_bindings")
    module = ModuleType(_RTX)
    vars(module).update({name: value for name, value in vars(bindings).items() if not name.startswith("_")})
    vars(module)["__version__"] = bindings.__version__
    sys.modules[_RTX] = module
    return module


class KeptLog:
    """TensorRT's logger: remembers errors and warnings, and passes every message to saccade's log at its level."""

    def __init__(self, tensorrt: TensorRt) -> None:
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self.logger = _logger(tensorrt, self._lines)

    def last(self) -> str:
        """The latest errors in one line. They are then forgotten, so that the next failure does not quote them."""
        text = "; ".join(dict.fromkeys(self._lines))
        self._lines.clear()
        return text or "it gave no reason"


def _logger(tensorrt: TensorRt, lines: deque[str]) -> Any:
    severity = tensorrt.ILogger.Severity

    class Logger(tensorrt.ILogger):  # type: ignore[misc, name-defined]  # the base is known at run time only
        def __init__(self) -> None:
            super().__init__()  # TensorRT's bindings require this call

        def log(self, level: Any, text: str) -> None:
            if level in (severity.ERROR, severity.INTERNAL_ERROR):
                lines.append(" ".join(text.split()))
                log.error("tensorrt", text=text)
            elif level == severity.WARNING:
                log.warning("tensorrt", text=text)

    return Logger()
