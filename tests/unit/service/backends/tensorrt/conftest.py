"""A simulated machine for every test of the backend."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.simulated_cuda import SimulatedCuda
from tests.support.simulated_tensorrt import SimulatedTensorRt
from tests.unit.service.backends.tensorrt.machines import Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    cuda = SimulatedCuda()
    return Machine(tmp_path, cuda, SimulatedTensorRt(cuda))
