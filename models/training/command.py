"""What all training commands share: options, machine set-up, and progress, in plain lines without a terminal."""

from __future__ import annotations

import argparse
import os
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

STATE_DIR = Path(".saccade/training")
CHECKPOINT_DIR = Path(__file__).resolve().parent.parent / "checkpoints"
_PLAIN_EVERY_S = 10.0  # a log line per step would be thousands


@dataclass(frozen=True, slots=True)
class Options:
    state_dir: Path
    checkpoint_dir: Path
    threads: int
    fresh: bool


def parse_options(description: str, arguments: list[str] | None = None) -> Options:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--state-dir", type=Path, default=STATE_DIR, help="where an interrupted run continues from")
    parser.add_argument("--checkpoint-dir", type=Path, default=CHECKPOINT_DIR, help="where results are written")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="torch threads")
    parser.add_argument("--fresh", action="store_true", help="forget an interrupted run")
    parsed = parser.parse_args(arguments)
    return Options(parsed.state_dir, parsed.checkpoint_dir, parsed.threads, parsed.fresh)


def bf16_is_faster() -> bool:
    """Whether this CPU multiplies bfloat16 matrices (AMX); the vectors of avx512_bf16 alone take longer than fp32."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return "amx_bf16" in flags


def autocast() -> torch.autocast:
    """Mixed precision for training where the CPU gains by it: three to four times faster convolutions."""
    return torch.autocast("cpu", torch.bfloat16, enabled=bf16_is_faster())


class ProgressReporter(AbstractContextManager["ProgressReporter"]):
    """Shows a bar in a terminal, and a line every few seconds in a log."""

    def __init__(self, name: str, steps: int) -> None:
        self._console = Console()
        self._name = name
        self._steps = steps
        self._loss = 0.0  # smoothed
        self._line_due = time.monotonic()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._task = self._progress.add_task(name, total=steps)

    def __enter__(self) -> ProgressReporter:
        self._progress.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._progress.stop()

    def step(self, done: int, loss: float) -> None:
        self._loss = loss if self._loss == 0.0 else 0.98 * self._loss + 0.02 * loss
        self._progress.update(self._task, completed=done, description=f"{self._name} loss {self._loss:.3f}")
        if not self._console.is_terminal and time.monotonic() >= self._line_due:
            self._line_due = time.monotonic() + _PLAIN_EVERY_S
            print(f"{self._name} step {done}/{self._steps} loss {self._loss:.4f}", flush=True)

    def evaluated(self, done: int, metric: float, best: float) -> None:
        self._console.print(f"{self._name} step {done}/{self._steps} tuning {metric:.4f} best {best:.4f}")
