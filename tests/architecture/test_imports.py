"""Imports point one way: models ← service ← export. Nothing heavy gets where it must not."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TRAINING_LIBRARIES = {"torch", "torchvision", "timm", "transformers", "onnx", "onnxscript", "sklearn", "matplotlib"}
MAY_NOT_IMPORT = {
    "models": {"service", "export", "tests"},
    "service": {"export", "tests", *TRAINING_LIBRARIES},
    "export": {"tests"},
}
CONTRACT = (
    "models/contract/specs.py",
    "models/contract/manifest.py",
    "models/contract/gate_bounds.py",
    "models/contract/paired_speed.py",
    "models/contract/quality_ranges.py",
    "models/contract/preprocessing.py",
    "models/contract/resampling.py",
)
# What reads the environment: settings enter at these doors, and children inherit theirs.
ENVIRONMENT_READERS = {
    "service/cli/bench.py",  # a key, by the variable's name
    "service/client/clients.py",  # a key
    "service/cli/predict_offline.py",
    "service/cli/serve.py",
    "service/cli/doctor.py",
    "service/repository/account_key.py",  # where the account keeps its settings
    "service/repository/object_store/address.py",  # where the account keeps its caches
    "service/repository/object_store/store.py",  # whether a store may speak HTTP; obstore reads the rest
    "service/metrics.py",
    "service/ipc/child_process.py",
    "service/worker/gpu_jpeg/nvimagecodec.py",  # only sets what nvImageCodec reads
    "service/backends/onnxruntime_backend.py",  # only sets what onnxruntime reads
}


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported_modules(path: Path) -> Iterator[str]:
    """Full names of all modules a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def top_level(path: Path) -> set[str]:
    """Roots of what a file imports; `saccade.models.contract.specs` counts as `models`."""
    return {name.removeprefix("saccade.").partition(".")[0] for name in imported_modules(path)}


@pytest.mark.parametrize("package", list(MAY_NOT_IMPORT))
def test_imports_point_one_way(package: str) -> None:
    found = {
        str(path.relative_to(ROOT)): sorted(top_level(path) & MAY_NOT_IMPORT[package])
        for path in sources(package)
        if top_level(path) & MAY_NOT_IMPORT[package]
    }
    found.pop("service/bench/page.py", None)  # draws with matplotlib, imported when --html asks for it
    assert found == {}


@pytest.mark.parametrize("name", CONTRACT)
def test_contract_imports_neither_training_libraries_nor_the_service(name: str) -> None:
    path = ROOT / name

    assert top_level(path) & {*TRAINING_LIBRARIES, "service", "export"} == set()
    ours = {module for module in imported_modules(path) if module.startswith("saccade.models.")}
    assert {".".join(module.split(".")[:4]) for module in ours} <= {
        "saccade.models.contract.specs",
        "saccade.models.contract.extras",
        "saccade.models.contract.gate_bounds",
        "saccade.models.contract.paired_speed",
        "saccade.models.contract.plain_files",
        "saccade.models.contract.quality_ranges",
        "saccade.models.contract.resampling",
    }


def test_data_and_contract_of_models_do_not_import_torch() -> None:
    folders = ("contract", "digits", "metrics")
    found = [path.name for folder in folders for path in sources(f"models/{folder}") if "torch" in top_level(path)]

    assert found == []


def test_nouns_import_nothing_of_ours() -> None:
    for name in ("service/core.py", "service/errors.py"):
        assert top_level(ROOT / name) & {"service", "models", "export"} == set()


def test_the_client_stands_by_itself() -> None:
    ours = {name for path in sources("service/client") for name in imported_modules(path) if name.startswith("saccade")}

    allowed = ("saccade.service.client", "saccade.models.contract.run_lengths")
    assert [name for name in ours if not name.startswith(allowed)] == []


def test_decisions_import_neither_http_nor_processes() -> None:
    # The pure parts stay pure: no web framework, no event loop, no files.
    pure = [
        *sources("service/worker/scheduling"),
        *(ROOT / "service/api" / name for name in ("admission_rules.py", "instance_estimates.py", "priority.py")),
    ]
    for path in pure:
        assert top_level(path) & {"fastapi", "starlette", "asyncio", "os", "pathlib", "time"} == set(), path
    assert not top_level(ROOT / "service/supervisor/wanted.py") & {"os", "pathlib", "time", "asyncio"}


def test_only_http_knows_http() -> None:
    allowed = {"service/api/app.py", "service/api/process.py"}
    found = {str(path.relative_to(ROOT)) for path in sources("service") if top_level(path) & {"fastapi", "starlette"}}
    outside = {name for name in found if not name.startswith(("service/api/http/", "service/api/grpc/"))}

    assert outside <= allowed


def test_environment_is_read_in_one_place() -> None:
    found = {
        str(path.relative_to(ROOT))
        for path in sources("service")
        if "os.environ" in path.read_text("utf-8") or "getenv" in path.read_text("utf-8")
    }
    assert found <= ENVIRONMENT_READERS


# In a fresh interpreter: what a process really loads

HEAVY = (
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "onnx",
    "sklearn",
    "scipy",
    "matplotlib",
    "pandas",
    "saccade.export",
)


HEAVY_TO_BUILD = (
    *(name for name in HEAVY if name not in ("onnx", "saccade.export")),
    "onnxruntime",
    "tensorrt",
    "tensorrt_rtx",
)


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("saccade.export.cli.build", (*HEAVY_TO_BUILD, "fastapi", "uvicorn")),  # a serving image builds plans with it
        (
            "saccade.export.plans.engine_build",
            tuple(name for name in HEAVY_TO_BUILD if name not in ("scipy", "onnxruntime")),
        ),
        ("saccade.export.plans.tensorrt_from_onnx", HEAVY_TO_BUILD),
        (
            "saccade.service.api.process",
            (*HEAVY, "onnxruntime", "tensorrt", "httpx", "cryptography", "opentelemetry.sdk", "obstore"),
        ),
        (
            "saccade.service.cli.program",
            (*HEAVY, "onnxruntime", "tensorrt", "uvicorn", "fastapi", "contourpy", "cryptography", "obstore"),
        ),
        (
            "saccade.service.worker.process",
            (*HEAVY, "onnxruntime", "tensorrt", "fastapi", "starlette", "uvicorn", "simplejpeg", "cryptography"),
        ),
        (
            "saccade.service.supervisor.process",
            (*HEAVY, "onnxruntime", "tensorrt", "cryptography", "obstore"),
        ),  # until keys are to be trusted
        (
            "saccade.client",
            (*HEAVY, "onnxruntime", "fastapi", "uvicorn", "numpy", "PIL", "pydantic", "saccade.models"),
        ),
        ("saccade.models.contract.manifest", (*HEAVY, "saccade.service", "numpy", "PIL")),
    ],
)
def test_module_imports_lean_in_a_fresh_interpreter(module: str, unwanted: tuple[str, ...]) -> None:
    program = f"import sys, {module}; print(*sorted(set({unwanted!r}) & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment, timeout=60
    )

    assert result.stdout.split() == []
