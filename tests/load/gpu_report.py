"""Tells `report-gpu.json` in Markdown. Promises: pure; every row that was not run stands there with its reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.load.gpu_rows import is_measured

Row = Mapping[str, Any]
Reached = Callable[[Mapping[str, Row]], tuple[str, bool] | None]  # figure and verdict of the rows; None: still open


@dataclass(frozen=True, slots=True)
class Target:
    """A figure that the product promises on an H200."""

    text: str
    reached: Reached


@dataclass(frozen=True, slots=True)
class Column:
    title: str
    field: str
    digits: int = 1


_COLUMNS: Mapping[str, tuple[Column, ...]] = {
    "plans": (
        Column("build s", "build_s"),
        Column("plan MB", "plan_mb"),
        Column("plan layers", "plan_layers", 0),
        Column("share in its precision", "share_in_precision", 3),
        Column("layers not accounted for", "unaccounted_layers", 0),
        Column("sparse kernels", "sparse_kernels", 0),
    ),
    "bare": (
        Column("images/s", "images_per_s", 0),
        Column("one at a time", "images_per_s_one_at_a_time", 0),
        Column("p50 ms", "p50_ms", 3),
        Column("p99 ms", "p99_ms", 3),
        Column("device p50 ms", "device_p50_ms", 3),
        Column("device p99 ms", "device_p99_ms", 3),
    ),
    "graphs": (
        Column("gain", "ratio", 3),
        Column("from", "ci_low", 3),
        Column("to", "ci_high", 3),
        Column("with, images/s", "first_images_per_s", 0),
        Column("without, images/s", "second_images_per_s", 0),
    ),
    "paired": (
        Column("ratio", "ratio", 3),
        Column("from", "ci_low", 3),
        Column("to", "ci_high", 3),
        Column("first, images/s", "first_images_per_s", 0),
        Column("second, images/s", "second_images_per_s", 0),
        Column("turns", "turns", 0),
    ),
    "reference": (
        Column("images/s", "images_per_s", 0),
        Column("first run s", "first_run_s", 2),
    ),
    "limits": (
        Column("images/s", "images_per_s", 0),
        Column("picture", "picture"),
        Column("JPEG bytes", "jpeg_bytes", 0),
        Column("processes", "processes", 0),
        Column("threads each", "threads_per_process", 0),
        Column("pixels within a level", "worst_share", 4),
        Column("worst image", "worst_image"),
        Column("may serve", "may_serve"),
    ),
    "served": (
        Column("objective ms", "objective_ms", 0),
        Column("requests/s", "per_second", 0),
        Column("p50 ms", "p50_ms", 2),
        Column("p99 ms", "p99_ms", 2),
        Column("connections", "connections", 0),
        Column("bare limit", "bare_limit", 0),
        Column("decode limit", "decode_limit", 0),
        Column("share of the smaller", "share_of_smaller_limit", 3),
        Column("most requests/s", "most_per_second", 0),
        Column("first request ms", "first_ms", 1),
        Column("tenth request ms", "tenth_ms", 1),
        Column("served by", "served_by"),
        Column("JPEGs by", "jpegs_by"),
    ),
}
_TITLES: Mapping[str, str] = {
    "plans": "Plans: what TensorRT made of each variant",
    "bare": "Bare: images per second and latency without a server",
    "graphs": "CUDA graphs on against off, batch 1, in turns",
    "paired": "Compared in turns: how much faster the first is",
    "reference": "Reference: the network alone in torch, fp16, tensors on the device",
    "limits": "Decode and resize alone, on all cores and by the engines of the GPU",
    "served": "Served: JPEG in, JSON out, the highest rate whose p99 keeps the objective",
}
_NOTES: Mapping[str, str] = {
    "bare": "`backend` and other runtimes run from host memory to host memory with batches in flight; `direct` is the "
    "plan alone on tensors that stay on the device. Latencies are of one batch at a time. Device times are between two "
    "events; ONNX Runtime owns its stream and does not tell.",
    "paired": "Ratios are of images per second at the lower quartile of the turns, with 95 % intervals from resampled "
    "turns. 2:4 pays where the whole interval is above 1.",
    "reference": "No server of saccade runs this: it says what the device can do. The first run is where torch.compile "
    "compiles.",
    "served": "The bare limit is the best batch size of the same backend; the decode limit has no server and no client "
    "beside it, the served rate has both on the same cores.",
}


def markdown(document: Mapping[str, Any], plots: Sequence[str] = ()) -> str:
    """The whole report. `plots` are file names beside it."""
    rows: Mapping[str, Row] = document["rows"]
    parts = [_head(document), _targets(rows) if document["kind"] == "gpu" else ""]
    for stage, title in _TITLES.items():
        found = [row for row in rows.values() if row["stage"] == stage]
        if found:
            parts.append(f"## {title}\n\n{_NOTES.get(stage, '')}".rstrip())
            parts.extend(_stage_tables(stage, found))
    parts.append(_stages_without_rows(rows))
    parts.extend(f"![{name}]({name})" for name in plots)
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(document: Mapping[str, Any]) -> str:
    is_gpu = document["kind"] == "gpu"
    title = "# saccade on a GPU" if is_gpu else "# Self-check on a CPU: these are no figures of a GPU"
    lines = [title, ""]
    lines.append(
        "Weights are random from a seed and calibration is on generated images: speed is measured here, accuracy is "
        "not. Networks, files and plans are made by the exporter's and the server's own functions."
    )
    lines += ["", "| call | device | driver | cores | commit | command |", "|---|---|---|---|---|---|"]
    for index, call in enumerate(document["calls"]):
        device = f"{call['device']} ({call['capability']})"
        lines.append(
            f"| {index} | {device} | {call['driver']} | {call['cores']} | {call['commit']} | `{call['command']}` |"
        )
    last = document["calls"][-1]
    lines += ["", "Versions: " + ", ".join(f"{name} {value}" for name, value in last["versions"].items()) + "."]
    if last["missing"]:
        lines += ["", "Not here:"] + [f"- {name}: {text}" for name, text in last["missing"].items()]
    return "\n".join(lines)


def _stage_tables(stage: str, rows: Sequence[Row]) -> list[str]:
    by_network: dict[str, list[Row]] = {}
    for row in rows:
        if is_measured(row):
            by_network.setdefault(str(row["network"]), []).append(row)
    tables = [_table(stage, network, found) for network, found in by_network.items()]
    lost = [row for row in rows if not is_measured(row)]
    if stage == "served":
        tables += [_trials(network, found) for network, found in by_network.items()]
    return [*tables, "\n".join(lost_lines(lost))] if lost else tables


def _stages_without_rows(rows: Mapping[str, Row]) -> str:
    """A stage that nobody asked for is named, so that its figures are not looked for."""
    absent = [stage for stage in _TITLES if stage not in {row["stage"] for row in rows.values()}]
    return f"Stages that no call asked for, so they have no rows: {', '.join(absent)}." if absent else ""


def _trials(network: str, rows: Sequence[Row]) -> str:
    """Every load that was tried, in the order of its connections."""
    lines = [f"### {network}: every load", ""]
    lines += ["| variant | runtime | connections | requests/s | p50 ms | p99 ms | not 200 |", "|" + "---|" * 7]
    for row in rows:
        for trial in sorted(row["trials"], key=lambda each: int(each["connections"])):
            figures = f"{trial['per_second']:.0f} | {trial['p50_ms']:.2f} | {trial['p99_ms']:.2f} | {trial['not_200']}"
            lines.append(f"| {row['variant']} | {row['runtime']} | {trial['connections']} | {figures} |")
    return "\n".join(lines)


def _table(stage: str, network: str, rows: Sequence[Row]) -> str:
    columns = _COLUMNS[stage]
    titles = ["variant", "runtime", "batch", *(column.title for column in columns)]
    lines = [f"### {network}", "", f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    lines += [f"| {' | '.join(_cells(row, columns))} |" for row in rows]
    return "\n".join(lines)


def _cells(row: Row, columns: Sequence[Column]) -> list[str]:
    shown = dict(row)
    if "plan_bytes" in shown:
        shown["plan_mb"] = shown["plan_bytes"] / 1e6
    head = [str(row["variant"] or "-"), str(row["runtime"]), str(row["batch"] or "-")]
    return head + [_text(shown.get(column.field), column.digits) for column in columns]


def _text(value: object, digits: int) -> str:
    if value is None or value == "":
        return "-"
    return f"{value:.{digits}f}" if isinstance(value, int | float) else str(value).replace("|", "/")


def lost_lines(rows: Sequence[Row]) -> list[str]:
    """One line per reason, however many rows have it; a failure names its case."""
    by_reason: dict[str, list[Row]] = {}
    for row in rows:
        text = f"not run: {row['not_run']}" if "not_run" in row else f"failed: {row['failed']} ({_case(row)})"
        by_reason.setdefault(text, []).append(row)
    return [f"- {text}{_places(found)}" for text, found in by_reason.items()]


def _case(row: Row) -> str:
    return " ".join(str(part) for part in (row["network"], row["variant"], row["runtime"], row["batch"] or "") if part)


def _places(rows: Sequence[Row]) -> str:
    if "failed" in rows[0]:
        return ""
    if len(rows) == 1:
        return f" ({_case(rows[0])})"
    parts = [", ".join(dict.fromkeys(str(row[name]) for row in rows if row[name])) for name in _PARTS]
    return f" ({len(rows)} rows: {'; '.join(part for part in parts if part)})"


_PARTS = ("network", "variant", "runtime")


def _targets(rows: Mapping[str, Row]) -> str:
    lines = ["## What is promised", "", "| figure | found | verdict |", "|---|---|---|"]
    for target in TARGETS:
        found = target.reached(rows)
        text, verdict = ("-", "open") if found is None else (found[0], "reached" if found[1] else "not reached")
        lines.append(f"| {target.text} | {text} | {verdict} |")
    return "\n".join(lines)


def _best(rows: Mapping[str, Row], field: str, wanted: Mapping[str, str]) -> Row | None:
    """The measured row with the largest figure among those whose parts begin as wanted."""
    found = [
        row
        for row in rows.values()
        if is_measured(row)
        and row.get(field) is not None
        and all(str(row[name]).startswith(value) for name, value in wanted.items())
    ]
    return max(found, key=lambda row: float(row[field]), default=None)


def _where(row: Row) -> str:
    return " ".join(str(part) for part in (row["variant"], row["runtime"], row["batch"] or "") if part)


def _at_least(field: str, least: float, unit: str, **wanted: str) -> Reached:
    def reached(rows: Mapping[str, Row]) -> tuple[str, bool] | None:
        row = _best(rows, field, wanted)
        return None if row is None else (f"{row[field]:.6g}{unit} ({_where(row)})", float(row[field]) >= least)

    return reached


def _ratio_above(least: float, **wanted: str) -> Reached:
    """The best row's whole interval must lie above."""

    def reached(rows: Mapping[str, Row]) -> tuple[str, bool] | None:
        row = _best(rows, "ratio", wanted)
        if row is None:
            return None
        return f"{row['ratio']:.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}] ({_where(row)})", row["ci_low"] > least

    return reached


def _served_within(rows: Mapping[str, Row]) -> tuple[str, bool] | None:
    """Any trial of a served ResNet-50, since its own objective is stricter than the promise."""
    trials = [
        trial
        for row in rows.values()
        if row["stage"] == "served" and row["network"] == "resnet50-224" and is_measured(row)
        for trial in row["trials"]
        if trial["p99_ms"] <= 50 and not trial["not_200"]
    ]
    best = max((trial["per_second"] for trial in trials), default=None)
    return None if best is None else (f"{best:.0f}/s", best >= 10_000)


def _ddrnet_fps(rows: Mapping[str, Row]) -> tuple[str, bool] | None:
    found = [
        1e3 / float(row["p50_ms"])
        for row in rows.values()
        if row["stage"] == "bare"
        and row["network"].startswith("ddrnet23slim")
        and (row["variant"], row["batch"]) == ("fp16", 1)
        and str(row["runtime"]).startswith("tensorrt")
        and is_measured(row)
    ]
    return (f"{max(found):.0f} images/s one at a time", max(found) >= 300) if found else None


def _bare_resnet(rows: Mapping[str, Row]) -> tuple[str, bool] | None:
    """By any runtime that a server has."""
    wanted = {"stage": "bare", "network": "resnet50", "variant": "fp16"}
    best = [_best(rows, "images_per_s", {**wanted, "runtime": name}) for name in ("tensorrt", "onnxruntime")]
    row = max((each for each in best if each), key=lambda each: float(each["images_per_s"]), default=None)
    return None if row is None else (f"{row['images_per_s']:.6g}/s ({_where(row)})", row["images_per_s"] >= 20_000)


def _compiled_torch(rows: Mapping[str, Row]) -> tuple[str, bool] | None:
    """Whether a backend of compiled torch programs would have its place: 1.2 times on two of three networks."""
    ratios: dict[str, float] = {}
    for network in sorted({str(row["network"]) for row in rows.values() if row["stage"] == "bare"}):
        wanted = {"stage": "bare", "network": network, "variant": "fp16"}
        ours = _best(rows, "images_per_s", {**wanted, "runtime": "onnxruntime"})
        compiled = _best(rows, "images_per_s", {**wanted, "runtime": "torch-compile"})
        if ours is not None and compiled is not None:
            ratios[network] = float(compiled["images_per_s"]) / float(ours["images_per_s"])
    if len(ratios) < _NETWORKS_COMPARED:
        return None
    text = ", ".join(f"{network} {ratio:.2f}" for network, ratio in ratios.items())
    return text, sum(ratio >= 1.2 for ratio in ratios.values()) >= 2


_NETWORKS_COMPARED = 3
TARGETS = (
    Target("ResNet-50 fp16: at least 20,000 images/s bare, by any runtime", _bare_resnet),
    Target(
        "torch.compile at least 1.2 times ONNX Runtime's images/s in fp16, on two of three networks", _compiled_torch
    ),
    Target(
        "ResNet-50: int8 faster than fp16",
        _ratio_above(1.0, stage="paired", network="resnet50", variant="int8 against"),
    ),
    Target("CUDA graphs pay at batch 1", _ratio_above(1.0, stage="graphs", network="resnet50")),
    Target("ResNet-50 served: at least 10,000/s at p99 of 50 ms", _served_within),
    Target(
        "ResNet-50 served: at least 0.8 of the smaller limit",
        _at_least("share_of_smaller_limit", 0.8, "", stage="served", network="resnet50"),
    ),
    Target("DDRNet-23-slim 1024x2048 fp16: at least 300 images/s at batch 1", _ddrnet_fps),
)
