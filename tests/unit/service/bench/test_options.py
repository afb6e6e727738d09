"""The command line: what it means, and what it refuses before a request is sent."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from saccade.service.bench.coordinator import Closed, default_processes
from saccade.service.bench.options import BenchOptions, SloSearchOptions, options_from
from saccade.service.bench.schedule import Constant, Poisson, Recorded
from saccade.service.bench.session import Open
from saccade.service.cli.bench import bench
from saccade.service.errors import BadParameter

URL = "http://127.0.0.1:1"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("0.jpg", "1.png"):
        (folder / name).write_bytes(name.encode())
    return folder


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    (tmp_path / "trace.csv").write_text("at_s\n0\n1\n3\n")
    return tmp_path / "trace.csv"


def parsed(*arguments: str, key: str | None = None) -> BenchOptions:
    """As the command reads them."""
    context = bench.make_context("bench", [URL, *arguments])
    given: dict[str, Any] = context.params
    return options_from(given, key)


def load_of(*arguments: str) -> Open | Closed | SloSearchOptions:
    return parsed("m", *arguments).load


def test_every_kind_of_load_is_understood(images: Path, trace: Path) -> None:
    some = ["--images", str(images)]
    cases: list[tuple[list[str], object]] = [
        (["--rate", "5"], Open(Poisson(5.0, 30.0))),
        (["--rate", "5", "--duration-s", "7", "--arrivals", "constant"], Open(Constant(5.0, 7.0))),
        (["--rate", "5", "--requests", "9"], Open(Poisson(5.0, 30.0), 9)),
        (["--closed", "4"], Closed(4, 30.0, 2.0)),
        (["--closed", "4", "--requests", "9"], Closed(4, math.inf, 2.0, 9)),
    ]
    for arguments, expected in cases:
        assert load_of(*some, *arguments) == expected
    replayed = load_of(*some, "--trace", str(trace), "--trace-speed", "2")
    assert isinstance(replayed, Open)
    assert replayed.arrivals == Recorded((0.0, 1.0, 3.0), 2.0)
    search = load_of(*some, "--find-slo", "--rate", "50")
    assert isinstance(search, SloSearchOptions)
    assert search.limits.start_rps == 50.0
    assert search.arrivals(5.0, 1.0) == Poisson(5.0, 1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "at which rate"),
        (["--trace", "TRACE", "--closed", "4"], "trace or closed"),
        (["--arrivals", "poisson", "--trace", "TRACE"], "trace or poisson"),
        (["--trace", "TRACE", "--duration-s", "5"], "leave --duration-s out"),
        (["--rate", "1", "--duration-s", "5", "--requests", "5"], "not both"),
        (["--find-slo", "--closed", "1"], "--find-slo"),
        (["--rate", "1", "--fail-if", "p99_ms"], "p99_ms>50"),
        (["--rate", "1", "--fail-if", "slo_rps<1"], "--find-slo"),
        (["--rate", "1", "--plan", "500"], "--find-slo"),
        (["--find-slo", "--plan-price", "3"], "belong to --plan"),
        (["--rate", "1", "--header", "no colon"], "NAME: VALUE"),
        (["--rate", "1", "--header", "Host: other"], "NAME: VALUE"),
        (["--rate", "1", "--header", "X-A: b\r\nX-C: d"], "does not allow"),
        (["--rate", "1", "-p", "top_k"], "NAME=VALUE"),
        (["--rate", "1", "--path", "predict"], "--path"),
        (["--rate", "1", "--json", "/no/such/folder/x.json"], "cannot write"),
    ],
)
def test_wrong_usage_is_refused_with_what_to_change(
    images: Path, trace: Path, arguments: list[str], message: str
) -> None:
    arguments = [str(trace) if argument == "TRACE" else argument for argument in arguments]
    with pytest.raises(BadParameter, match=message):
        parsed("m", "--images", str(images), *arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "one MODEL, or several"),
        (["m", "--mix", "a=1"], "one MODEL, or several"),
        (["--mix", "a"], "MODEL=WEIGHT"),
        (["--mix", "a=0"], "above zero"),
        (["--mix", "a=1,b=1", "--images", "nowhere"], "several folders"),
        (["m", "--images", "m=nowhere"], "not a folder"),
    ],
)
def test_wrong_models_are_refused(images: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(BadParameter, match=message):
        parsed(*arguments, "--images", str(images), "--rate", "1")


def test_model_without_images_is_refused(images: Path) -> None:
    with pytest.raises(BadParameter, match=r"--images b=DIR"):
        parsed("--mix", "a=1,b=1", "--images", f"a={images}", "--rate", "1")


def test_mix_takes_a_folder_for_each_model(images: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "2.jpg").write_bytes(b"2")

    options = parsed(
        *("--mix", "a=3,b=1", "--images", f"b={tmp_path / 'other'}", "--images", str(images), "--rate", "1")
    )

    workload = options.session.workload
    assert workload.weights == {"a": 3.0, "b": 1.0}
    assert [(item.model, item.image) for item in workload.items] == [("a", "0.jpg"), ("a", "1.png"), ("b", "2.jpg")]


def test_key_header_and_deadline_go_with_every_request(images: Path) -> None:
    options = parsed(
        *("m", "--images", str(images), "--rate", "1", "-H", "X-Priority: high", "--deadline-ms", "250"), key="secret"
    )

    head = options.session.workload.items[0].head.decode()
    assert head.startswith("POST /v1/models/m/predict?deadline_ms=250 HTTP/1.1\r\n")
    assert "Authorization: Bearer secret\r\n" in head
    assert "X-Priority: high\r\n" in head


@pytest.mark.parametrize("environment", [{}, {"KEY": " "}])
def test_key_that_is_not_set_is_wrong_usage(images: Path, environment: dict[str, str]) -> None:
    result = CliRunner().invoke(
        bench, [URL, "m", "--images", str(images), "--rate", "1", "--key-env", "KEY"], env=environment
    )

    assert result.exit_code == 2
    assert "KEY" in result.output


@pytest.mark.parametrize(("cores", "processes"), [(1, 1), (2, 1), (4, 2), (64, 8)])
def test_client_takes_half_the_cores(cores: int, processes: int) -> None:
    assert default_processes(cores) == processes
