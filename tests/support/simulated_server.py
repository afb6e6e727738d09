"""`saccade` on the simulated device: workers and builds are real processes, only CUDA and TensorRT are simulated.

Run as `python -m tests.support.simulated_server serve …`. What a build finds is chosen by SIMULATED_BUILD.
"""

from __future__ import annotations

from functools import partial

from saccade.service.cli.program import main
from saccade.service.supervisor import devices as device_supervision
from saccade.service.supervisor.engines import build_child, plans


def simulate() -> None:
    """Children of this process are those of the simulation."""
    device_supervision.WORKER_MODULE = "tests.support.simulated_worker"
    plans.run_build = partial(build_child.run_build, program=("-m", "tests.support.simulated_build"))  # type: ignore[assignment]


if __name__ == "__main__":
    simulate()
    main()
