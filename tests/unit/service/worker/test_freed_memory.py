"""Memory that a process freed goes back to the kernel; by the children's allocator settings alone it would stay."""

from __future__ import annotations

import subprocess
import sys

import pytest

from saccade.service.ipc.child_process import ALLOCATOR
from tests.support.server import ROOT, clean_environment

_FREES = """
import numpy, psutil
from saccade.service.worker.freed_memory import return_freed_memory
blocks = [numpy.ones(1 << 20, numpy.uint8) for _ in range(40)]
above = numpy.ones(1 << 12, numpy.uint8)
del blocks
before = psutil.Process().memory_info().rss
return_freed_memory()
print((before - psutil.Process().memory_info().rss) >> 20)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_freed_blocks_are_returned() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _FREES],
        cwd=ROOT,
        env=clean_environment(ALLOCATOR),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert int(ended.stdout) > 30  # MiB of 40
