"""Checks all options of the command line before the first request, and runs what they ask for."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from saccade.service.bench.coordinator import ClientLimits, Closed, default_processes
from saccade.service.bench.images import ImageFile, read_images
from saccade.service.bench.limits import FailCondition, condition_from
from saccade.service.bench.plan import plan_for
from saccade.service.bench.progress import ProgressShow
from saccade.service.bench.schedule import Constant, Poisson, Recorded
from saccade.service.bench.session import BenchRun, Open, Session, measure, search_slo
from saccade.service.bench.slo_search import SearchLimits
from saccade.service.bench.traces import read_trace
from saccade.service.bench.workload import DEFAULT_PATH, ModelShare, RequestShape, endpoint_of, workload_of
from saccade.service.errors import BadParameter
from saccade.service.settings import core_count

_DURATION_S = 30.0
_SEARCH_START_RPS = 10.0
_OURS = frozenset({"host", "content-type", "content-length", "transfer-encoding", "connection"})


@dataclass(frozen=True, slots=True)
class SloSearchOptions:
    limits: SearchLimits
    trial_s: float
    is_constant: bool

    def arrivals(self, rate_rps: float, duration_s: float) -> Constant | Poisson:
        return Constant(rate_rps, duration_s) if self.is_constant else Poisson(rate_rps, duration_s)


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What is to be carried by servers like the measured one, which has so many devices and such a price."""

    rate_rps: float
    devices: int
    price_per_hour: float | None


@dataclass(frozen=True, slots=True)
class BenchOptions:
    session: Session
    load: Open | Closed | SloSearchOptions
    conditions: tuple[FailCondition, ...]
    json_file: str | None
    html_file: Path | None
    record: Path | None
    plan: PlanOptions | None = None


def options_from(given: Mapping[str, Any], key: str | None) -> BenchOptions:
    """Makes checked options from the command's options by name. Raises BadParameter."""
    conditions = tuple(condition_from(text) for text in given["fail_if"])
    if any(condition.figure == "slo_rps" for condition in conditions) and not given["find_slo"]:
        raise BadParameter("a condition on slo_rps needs --find-slo")
    if given["plan"] is not None and not given["find_slo"]:
        raise BadParameter("--plan needs the highest rate that one server carries: add --find-slo")
    if given["plan"] is None and (given["plan_devices"] != 1 or given["plan_price"] is not None):
        raise BadParameter("--plan-devices and --plan-price belong to --plan RATE")
    for name in ("json_file", "html_file", "record"):
        _ensure_writable(given[name])
    if given["html_file"] and find_spec("matplotlib") is None:
        raise BadParameter("--html draws with matplotlib, which is not installed: pip install matplotlib")
    load = _load(given)
    endpoint = endpoint_of(given["url"])
    shape = RequestShape(_headers(given, key), _query(given), _path(given["path"]))
    session = Session(
        url=given["url"],
        endpoint=endpoint,
        workload=workload_of(_shares(given), endpoint, shape),
        shape=shape,
        limits=ClientLimits(
            given["processes"] or default_processes(core_count()),
            given["connections"],
            given["max_in_flight"],
            given["timeout_s"],
        ),
        seed=given["seed"],
        warm_up_s=given["warm_up_s"],
        objective_ms=given["objective_ms"],
    )
    plan = None if given["plan"] is None else PlanOptions(given["plan"], given["plan_devices"], given["plan_price"])
    return BenchOptions(session, load, conditions, given["json_file"], given["html_file"], given["record"], plan)


def measured_with(options: BenchOptions, progress: ProgressShow) -> BenchRun:
    """Runs the load, or the search for a rate, that the options ask for."""
    if isinstance(options.load, SloSearchOptions):
        search = options.load
        run = search_slo(
            options.session, search.limits, search.arrivals, search.trial_s, progress.show, progress.say_trial
        )
        return run if options.plan is None else _with_plan(run, options.plan)
    return measure(options.session, options.load, progress.show)


def _with_plan(run: BenchRun, plan: PlanOptions) -> BenchRun:
    carried_rps = run.report.slo.rate_rps if run.report.slo else None
    figures = plan_for(plan.rate_rps, carried_rps, plan.devices, plan.price_per_hour)
    return replace(run, report=replace(run.report, plan=figures))


# When requests are sent


def _load(given: Mapping[str, Any]) -> Open | Closed | SloSearchOptions:
    kind = _kind(given)
    if given["find_slo"]:
        if kind not in ("poisson", "constant") or given["requests"] or given["duration_s"]:
            raise BadParameter(
                "--find-slo chooses rates and durations itself: give --trial-s, and --rate to begin with; "
                "its arrivals are poisson or constant"
            )
        limits = SearchLimits(given["rate"] or _SEARCH_START_RPS, given["max_rate"])
        return SloSearchOptions(limits, given["trial_s"], kind == "constant")
    if given["duration_s"] and given["requests"] and kind != "closed":
        raise BadParameter("give --duration-s or --requests, not both")
    if kind == "closed":
        # With a number of requests and no duration, only that number ends the load.
        duration_s = given["duration_s"] or (math.inf if given["requests"] else _DURATION_S)
        return Closed(given["closed"], duration_s, given["warm_up_s"], given["requests"])
    if kind == "trace":
        trace = read_trace(given["trace"])[: given["requests"]]
        return Open(Recorded(tuple(item.at_s for item in trace), given["trace_speed"]), trace=trace)
    rate_rps, duration_s = given["rate"], given["duration_s"] or _DURATION_S
    if rate_rps is None:
        raise BadParameter("at which rate? give --rate, or --trace, --closed or --find-slo")
    arrivals = Constant(rate_rps, duration_s) if kind == "constant" else Poisson(rate_rps, duration_s)
    return Open(arrivals, given["requests"])


def _kind(given: Mapping[str, Any]) -> str:
    """The kind of load, named or implied by other options. Raises BadParameter when two are implied."""
    kinds = [kind for kind in ("trace", "closed") if given[kind] is not None]
    if given["arrivals"] is not None:
        kinds.append(given["arrivals"])
    if len(kinds) > 1:
        raise BadParameter(f"choose one load: {' or '.join(kinds)}")
    if kinds == ["trace"] and given["duration_s"]:
        raise BadParameter("--trace says how long it takes: leave --duration-s out")
    return str(kinds[0]) if kinds else "poisson"


# What is sent


def _shares(given: Mapping[str, Any]) -> list[ModelShare]:
    weights = _weights(given["model"], given["mix"])
    folders = _folders(given["images"], weights)
    read: dict[Path, tuple[ImageFile, ...]] = {}
    for folder in folders.values():
        if folder not in read:
            read[folder] = read_images(folder, given["max_images"])
    return [ModelShare(model, weight, read[folders[model]]) for model, weight in weights.items()]


def _weights(model: str | None, mix: str | None) -> dict[str, float]:
    if (model is None) == (mix is None):
        raise BadParameter("name one MODEL, or several with --mix MODEL=WEIGHT,MODEL=WEIGHT")
    if mix is None:
        return {str(model): 1.0}
    weights = {}
    for item in mix.split(","):
        name, equals, text = item.strip().rpartition("=")
        try:
            weight = float(text) if equals else math.nan
        except ValueError:
            weight = math.nan
        if not name or not 0 < weight < math.inf:
            raise BadParameter(f"--mix takes MODEL=WEIGHT with a weight above zero, got {item!r}")
        weights[name] = weight
    return weights


def _folders(images: tuple[str, ...], weights: Mapping[str, float]) -> dict[str, Path]:
    """The folder of each model; a folder without a model's name serves all models that have none."""
    named: dict[str, Path] = {}
    common: list[Path] = []
    for item in images:
        model, equals, of_model = item.partition("=")
        if equals and model in weights:
            named[model] = Path(of_model)
        else:
            common.append(Path(item))
    if len(common) > 1:
        raise BadParameter(f"several folders for the same models: {', '.join(map(str, common))}; write MODEL=DIR")
    for folder in (*named.values(), *common):
        if not folder.is_dir():
            raise BadParameter(f"{folder} is not a folder of images (models: {', '.join(weights)})")
    without = [model for model in weights if model not in named]
    if without and not common:
        raise BadParameter(f"no images for {', '.join(without)}: add --images {without[0]}=DIR")
    return {**{model: common[0] for model in without}, **named}


def _headers(given: Mapping[str, Any], key: str | None) -> tuple[tuple[str, str], ...]:
    headers = [("Authorization", f"Bearer {key}")] if key else []
    for text in given["headers"]:
        name, colon, value = text.partition(":")
        if not colon or not name.strip() or name.strip().lower() in _OURS:
            raise BadParameter(f"--header takes 'NAME: VALUE', none of {', '.join(sorted(_OURS))}; got {text!r}")
        headers.append((name.strip(), value.strip()))
    for name, value in headers:
        if not (name + value).isprintable() or not (name + value).isascii():
            raise BadParameter(f"header {name!r} has characters that HTTP does not allow")
    return tuple(headers)


def _query(given: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    query = []
    for text in given["parameters"]:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise BadParameter(f"--parameter takes NAME=VALUE, got {text!r}")
        query.append((name, value))
    if given["deadline_ms"] is not None:
        query.append(("deadline_ms", f"{given['deadline_ms']:g}"))
    return tuple(query)


def _path(path: str | None) -> str:
    if path is None:
        return DEFAULT_PATH
    if not path.startswith("/") or not path.isascii() or " " in path:
        raise BadParameter(f"--path takes a path such as /predict or /v1/{{model}}, got {path!r}")
    return path


def _ensure_writable(file: str | Path | None) -> None:
    """Checks before the load that a file can be written after it."""
    if file is None or file == "-":
        return
    folder = Path(file).absolute().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise BadParameter(f"cannot write {file}: {folder} is not a folder to write to")
