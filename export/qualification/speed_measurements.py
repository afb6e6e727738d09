"""Measures a file's memory, and its time against its bare form, in the sessions that serve; both take turns."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from saccade.export.data.image_split import batch_of
from saccade.export.errors import GraphError
from saccade.export.qualification.bare_graph import bare_images
from saccade.export.qualification.benchmark import seconds_per_run, speed_ratio, usable_threads
from saccade.export.qualification.qualify_report import SpeedRatio
from saccade.export.qualification.serving import open_racing_backends
from saccade.export.recipe import Recipe
from saccade.export.variants import TRAITS, VariantTraits

_MEMORY_TIMEOUT_S = 600.0


def speed_ratios(
    deploy_file: Path, bare_file: Path, recipe: Recipe, traits: VariantTraits, images: NDArray[np.uint8]
) -> tuple[SpeedRatio, ...]:
    """Times the deploy graph against the bare one, in turns."""
    deploy, bare = open_racing_backends(deploy_file, bare_file, recipe, traits)
    figures = []
    for size in recipe.qualify.compare_batch_sizes:
        batch = batch_of(images, size)
        floats = bare_images(batch)
        seconds = seconds_per_run(
            [
                lambda batch=batch: deploy.infer(batch),  # type: ignore[misc]  # mypy cannot type a bound default
                lambda floats=floats: bare.infer(floats),  # type: ignore[misc]  # as above
            ],
            recipe.qualify.compare_repeats,
            recipe.qualify.compare_budget_s,
        )
        figures.append(speed_ratio(seconds, size))
    deploy.close()
    bare.close()
    return tuple(figures)


def memory_mb(file: Path, recipe: Recipe, traits: VariantTraits = TRAITS["fp32"]) -> float:
    """Returns by how many MB a new process's peak grows when it opens the file and runs the largest batch.

    Raises GraphError when that process fails.
    """
    sizes = recipe.allowed_batch_sizes
    shape = (sizes[-1], recipe.preprocess.height, recipe.preprocess.width, 3)
    threads = usable_threads(recipe.qualify.threads)
    child = _OPENVINO_CHILD if traits.is_openvino else _CHILD
    given = orjson.dumps([shape, threads, sizes, traits.precision]).decode()
    command = [sys.executable, "-c", child, os.fspath(file), given]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_MEMORY_TIMEOUT_S, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise GraphError(f"the process that measures memory ended with {done.returncode}: {lines[-1]}")
    before, after = (int(word) for word in done.stdout.split())
    return round((after - before) / 1024, 1)


# A process of its own, so that nothing else of the export counts. It prints the peak resident size in KiB before and
# after, from the kernel's own table, because getrusage starts with the parent's peak.
_PEAK = """
import json, os, pathlib, sys
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import numpy
def peak():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith("VmHWM"))
shape, threads, sizes, precision = json.loads(sys.argv[2])
images = numpy.zeros(shape, numpy.uint8)
"""
_CHILD = f"""{_PEAK}
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = threads
options.log_severity_level = 3
before = peak()
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
session.run(None, {{"images": images}})
print(before, peak())
"""
_OPENVINO_CHILD = f"""{_PEAK}
from saccade.service.backends.openvino_backend import config_for, import_openvino
core = import_openvino().Core()
before = peak()
model = core.read_model(sys.argv[1])
opened = []
for size in sizes:
    shaped = model.clone()
    shaped.reshape([size, *shape[1:]])
    opened.append(core.compile_model(shaped, "CPU", config_for(precision, threads)).create_infer_request())
opened[-1].infer({{"images": images}})
print(before, peak())
"""
