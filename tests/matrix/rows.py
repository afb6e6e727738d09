"""Rows of the matrix. Promises: plain frozen values, one JSON file, a key says whether a row still holds."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import orjson
from pydantic import TypeAdapter

from saccade.models.contract.specs import Frozen, Task
from tests.matrix.entries import Entry

RESULTS_NAME = "results.json"
_TOOLS = ("torch", "torchvision", "timm", "transformers", "onnx", "onnxscript", "onnxslim", "onnxruntime")
_PLAN_TOOL = "tensorrt-rtx-cu13-libs"
_PACKAGES = ("models", "service", "export", "tests/matrix")


class Parity(Frozen):
    """The ONNX file's raw outputs against the eager network's, worst output."""

    batch_size: int
    relative_l2: float


class Int8(Frozen):
    is_built: bool
    megabytes: float = 0.0
    note: str = ""  # why it was not built


class Plan(Frozen):
    """One TensorRT plan, built for one compute capability without a GPU."""

    capability: str
    megabytes: float
    seconds: float


class Served(Frozen):
    """An answer over HTTP beside that of the published file."""

    images: int
    items: int  # numbers and texts compared
    largest_difference: float | None  # of numbers, relative to the larger of them and 1; None: another form
    problem: str = ""

    @property
    def is_equal(self) -> bool:
        return not self.problem


class OwnAnswers(Frozen):
    """The published file's answers beside those of the trained file that it was made from."""

    images: int
    least_equal: float  # share of a picture's pixels, or 1.0 and 0.0 for the first class
    largest_difference: float  # of scores
    problem: str = ""


class Row(Frozen):
    """What became of one entry. Empty text and None mean: not reached, or nothing to say."""

    id: str
    key: str
    family: str
    source: str
    task: Task
    size: tuple[int, int] | None = None  # width, height
    parameters: int | None = None
    folds: int | None = None
    export_seconds: float | None = None  # wrap, conversion and optimisation
    opset: int | None = None
    parity: tuple[Parity, ...] = ()
    not_batchable_reason: str = ""
    int8: Int8 | None = None
    plan_size: tuple[int, int] | None = None  # where it differs from `size`
    plans: tuple[Plan, ...] = ()
    plan_problem: str = ""  # the operator and layer that stop it
    served: Served | None = None
    own: OwnAnswers | None = None
    denied: str = ""  # what the gate said of variants that it kept out
    failure: str = ""
    fallback: str = ""
    seconds: float = 0.0
    processor_seconds: float = 0.0  # of the process and of its server: free of what else the machine does
    peak_gib: float = 0.0  # resident memory of the process that exported

    @property
    def is_exported(self) -> bool:
        return self.export_seconds is not None

    @property
    def worst_parity(self) -> float | None:
        return max((figure.relative_l2 for figure in self.parity), default=None)


Rows = Mapping[str, Row]
_ROWS: TypeAdapter[list[Row]] = TypeAdapter(list[Row])


def read_rows(directory: Path) -> dict[str, Row]:
    """By entry; empty where there is no file yet."""
    path = directory / RESULTS_NAME
    if not path.exists():
        return {}
    return {row.id: row for row in _ROWS.validate_json(path.read_bytes())}


def write_rows(directory: Path, rows: Rows, order: Mapping[str, int]) -> None:
    """All rows in the order given, those without a place last; replaced as a whole."""
    listed = sorted(rows.values(), key=lambda row: (order.get(row.id, len(order)), row.id))
    replace_file(
        directory / RESULTS_NAME,
        orjson.dumps(
            [row.model_dump(mode="json") for row in listed], option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
        ),
    )


def replace_file(path: Path, content: bytes) -> None:
    """A reader sees the old file or the new one."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_bytes(content)
    scratch.replace(path)


def row_key(entry: Entry) -> str:
    """Changes with the entry, with any source file of ours and with any library's version."""
    text = f"{entry!r}\0{tool_versions()!r}\0{source_digest()}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def tool_versions() -> dict[str, str]:
    tools = {tool: version(tool) for tool in _TOOLS}
    return tools | {_PLAN_TOOL: version(_PLAN_TOOL)} if has_plan_tool() else tools


def has_plan_tool() -> bool:
    """Whether TensorRT for RTX is installed, which builds plans on a machine without a GPU."""
    return find_spec("tensorrt_rtx_bindings") is not None


@cache
def source_digest() -> str:
    root = Path(__file__).resolve().parents[2]
    digest = hashlib.sha256()
    for path in sorted(path for package in _PACKAGES for path in (root / package).rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
