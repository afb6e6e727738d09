"""A build child of any kind ends in one outcome: finished, denied, dead, silent, or killed with the server."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from saccade.models.contract.plans import PlanKey
from saccade.service.supervisor.engines.build_child import run_build
from saccade.service.supervisor.engines.build_wire import BuildOrder, BuildOutcome, BuildProgress, BuildStage

KEY = PlanKey(
    onnx_sha256="a" * 64,
    runtime="tensorrt",
    runtime_version="11.4.0.12",
    capabilities=("SM90",),
    allowed_batch_sizes=(1, 2),
)
ORDER = BuildOrder("/repository/digits/1", "b" * 64, "fp16", "/engines", "", KEY.model_dump_json())
ANSWERS = """
import json, sys
order = json.load(sys.stdin)
def say(**line):
    print(json.dumps(line), flush=True)
"""


class Followed:
    """What a run told."""

    def __init__(self) -> None:
        self.progress: list[BuildProgress] = []
        self.notes: list[str] = []

    async def run(self, script: str, timeout_s: float = 20.0) -> BuildOutcome:
        program = ("-c", ANSWERS + script)
        return await run_build(
            ORDER, {"CUDA_VISIBLE_DEVICES": "3"}, timeout_s, self._follow, self.notes.append, program
        )

    def _follow(self, progress: BuildProgress) -> None:
        self.progress.append(progress)


@pytest.fixture
def followed() -> Followed:
    return Followed()


async def test_progress_and_outcome_arrive_and_other_lines_do_not_matter(followed: Followed) -> None:
    outcome = await followed.run("""
import os
print("a library says hello")
say(type="progress", stage="building", share=0.5, text=os.environ["CUDA_VISIBLE_DEVICES"])
say(type="progress", stage="measuring", share=1.0)
say(type="outcome", accepted=True, denied=False, reason="", plan_dir=order["variant"])
""")

    assert outcome == BuildOutcome(accepted=True, denied=False, reason="", plan_dir="fp16")
    assert followed.progress == [
        BuildProgress(BuildStage.BUILDING, 0.5, "3"),
        BuildProgress(BuildStage.MEASURING, 1.0),
    ]


async def test_child_that_dies_has_failed_with_its_last_words(followed: Followed) -> None:
    outcome = await followed.run("""
say(type="progress", stage="building", share=0.1)
print("out of memory", file=sys.stderr)
sys.exit(9)
""")

    assert (outcome.accepted, outcome.denied) == (False, False)
    assert outcome.reason == "the build ended with exit code 9: out of memory"
    assert followed.notes == ["out of memory"]


async def test_child_that_dies_before_it_reads_has_failed_too(followed: Followed) -> None:
    program = ("-c", "import sys; sys.exit(3)")

    outcome = await run_build(ORDER, {}, 20.0, lambda progress: None, followed.notes.append, program)

    assert "exit code 3" in outcome.reason


async def test_silent_child_is_killed_with_what_it_started(followed: Followed, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"

    outcome = await followed.run(
        f"""
import subprocess, threading
started = subprocess.Popen([sys.executable, "-c", "import threading; threading.Event().wait()"])
open({str(pid_file)!r}, "w").write(str(started.pid))
say(type="progress", stage="building", share=0.1)
threading.Event().wait()
""",
        timeout_s=3.0,  # of which Python's start takes its part
    )

    assert "said nothing for 3 s and was killed" in outcome.reason
    assert _is_gone(int(pid_file.read_text()))


async def test_cancelling_kills_the_child(followed: Followed) -> None:
    started = asyncio.Event()
    pids: list[int] = []

    def follow(progress: BuildProgress) -> None:
        pids.append(int(progress.text))
        started.set()

    script = (
        ANSWERS
        + """
import os, threading
say(type="progress", stage="building", share=0.1, text=str(os.getpid()))
threading.Event().wait()
"""
    )
    run = asyncio.create_task(run_build(ORDER, {}, 60.0, follow, followed.notes.append, ("-c", script)))
    await asyncio.wait_for(started.wait(), 20)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run

    assert _is_gone(pids[0])


def _is_gone(pid: int) -> bool:
    """Also true for one that nobody has waited for yet; a killed process takes a moment to end."""
    try:
        process = psutil.Process(pid)
        for _ in range(1000):
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
            with suppress(psutil.TimeoutExpired):
                process.wait(0.01)
                return True
    except psutil.NoSuchProcess:
        return True
    return False
