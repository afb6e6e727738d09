"""Reports how far a build is; a listener may end the build, and a failure of the listener is raised afterwards.

TensorRT reports nested phases, each with a number of steps, from any of its threads. No exception may reach it from
such a call, so the first failure ends the build and is raised afterwards.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Protocol

from saccade.export.errors import BuildCancelled


class BuildProgress(Protocol):
    """A callable that hears how far a build is; it returns False to end the build."""

    def __call__(self, stage: str, done_share: float) -> bool: ...


@dataclass(slots=True)
class _Phase:
    steps: int
    parent: str | None
    done: int = 0
    inner: set[str] = field(default_factory=set)  # phases within its present step


class PhaseShares:
    """Computes the share of a build that is done from its phases."""

    def __init__(self) -> None:
        self._phases: dict[str, _Phase] = {}
        self._best = 0.0

    def start(self, name: str, parent: str | None, steps: int) -> float:
        self._phases[name] = _Phase(max(1, steps), parent)
        if parent in self._phases:
            self._phases[parent].inner.add(name)
        return self.share

    def step(self, name: str, step: int) -> float:
        """Records that step `step`, counted from 0, is done."""
        if name in self._phases:
            phase = self._phases[name]
            phase.done = min(phase.steps, max(phase.done, step + 1))
            phase.inner.clear()
        return self.share

    def finish(self, name: str) -> float:
        phase = self._phases.get(name)
        if phase is not None:
            phase.done = phase.steps
            if phase.parent is not None and phase.parent not in self._phases:
                del self._phases[name]  # nothing reads it any more
        return self.share

    @property
    def share(self) -> float:
        """Returns 0 to 1; it never falls, though a phase may start again."""
        roots = [name for name, phase in self._phases.items() if phase.parent is None]
        found = min((self._share_of(name) for name in roots), default=0.0)
        self._best = max(self._best, found)
        return self._best

    def _share_of(self, name: str) -> float:
        phase = self._phases[name]
        if phase.done >= phase.steps:
            return 1.0
        inner = [self._share_of(each) for each in phase.inner if each in self._phases]
        within = sum(inner) / len(inner) if inner else 0.0
        return (phase.done + within) / phase.steps


class BuildMonitor:
    """Passes a build's progress to a listener, and the listener's wish to stop to the builder."""

    def __init__(self, progress: BuildProgress) -> None:
        self._progress = progress
        self._shares = PhaseShares()
        self._lock = threading.Lock()
        self._failure: Exception | None = None
        self._is_cancelled = False

    def started(self, name: str, parent: str | None, steps: int) -> None:
        with self._lock:
            self._tell(name, self._shares.start(name, parent, steps))

    def stepped(self, name: str, step: int) -> bool:
        with self._lock:
            self._tell(name, self._shares.step(name, step))
            return not self._is_cancelled

    def finished(self, name: str) -> None:
        with self._lock:
            self._tell(name, self._shares.finish(name))

    def ensure_went_on(self) -> None:
        """Raises BuildCancelled, or what the listener raised."""
        if self._failure is not None:
            raise self._failure
        if self._is_cancelled:
            raise BuildCancelled("the build of the plan was cancelled; nothing was kept")

    def _tell(self, stage: str, share: float) -> None:
        if self._is_cancelled:
            return
        try:
            self._is_cancelled = not self._progress(stage, share)
        except Exception as error:  # it would end the process inside TensorRT, so ensure_went_on raises it
            self._failure = error
            self._is_cancelled = True


def tensorrt_monitor(tensorrt: ModuleType, monitor: BuildMonitor) -> Any:
    """Wraps a monitor in TensorRT's interface; the wrapper must outlive the build."""

    class Monitor(tensorrt.IProgressMonitor):  # type: ignore[misc, name-defined]  # known at run time only
        def __init__(self) -> None:
            super().__init__()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            monitor.started(phase_name, parent_phase or None, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return monitor.stepped(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            monitor.finished(phase_name)

    return Monitor()
