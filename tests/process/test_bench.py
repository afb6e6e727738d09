"""`saccade bench` against a real server: what it counts is what happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from saccade.service.backends.fake_backend import SLOW_S
from tests.support.images import SLOW_PNG, red_png
from tests.support.server import ROOT, Server, call_saccade, clean_environment, running_server, wait_until

BAD = 2  # of ten images


@pytest.fixture(scope="module")
def serial(three_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Batches of one, so that a slow image stalls those behind it; slots for all that a stalled machine sends late."""
    with running_server(three_models, tmp_path_factory.mktemp("serial"), max_batch_size=1, slots=1000) as server:
        yield server


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images and two files that are none."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(10):
        content = b"not an image" if number < BAD else red_png(number)
        (folder / f"{number}.png").write_bytes(content)
    return folder


def report_of(result: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def counts_of(report: dict[str, Any]) -> dict[str, int]:
    return {item["label"]: item["count"] for item in report["outcomes"]}


def test_every_request_is_counted_as_the_server_counted_it(serial: Server, images: Path) -> None:
    before = {outcome: serial.outcomes(outcome) for outcome in ("ok", "bad_request")}

    result = call_saccade(
        *("bench", serial.base_url, "classifier", "--images", str(images), "--rate", "200", "--requests", "200"),
        *("--warm-up-s", "0", "--processes", "2", "--json", "-", "--timeout-s", "20"),
    )

    report = report_of(result)
    assert result.returncode == 0, result.stderr
    assert report["requests"] == 200 == report["ok"] + report["failed"]
    assert counts_of(report) == {"200": 160, "422 Image cannot be used": 40}
    assert report["latency"]["count"] == 160
    assert {outcome: serial.outcomes(outcome) - count for outcome, count in before.items()} == {
        "ok": 160,
        "bad_request": 40,
    }
    assert [(item["version"], item["variant"], item["count"]) for item in report["versions"]] == [("1", "fp32", 160)]
    assert [stage["name"] for stage in report["stages"]][:4] == ["decode", "queue", "infer", "postprocess"]
    assert report["error_rate"] == pytest.approx(0.2)
    assert report["energy"]["devices"] or report["energy"]["not_told"]


def test_mix_is_recorded_and_replayed_request_by_request(serial: Server, images: Path, tmp_path: Path) -> None:
    load = ("--mix", "classifier=3,detector=1", "--images", str(images), "--warm-up-s", "0.1", "--processes", "1")
    first = call_saccade(
        *("bench", serial.base_url, *load, "--rate", "100", "--duration-s", "1"),
        *("--record", str(tmp_path / "trace.jsonl"), "--json", str(tmp_path / "first.json")),
    )
    assert first.returncode == 0, first.stderr
    assert "model        detector" in first.stdout

    again = call_saccade(
        *("bench", serial.base_url, *load, "--trace", str(tmp_path / "trace.jsonl")),
        *("--json", "-", "--html", str(tmp_path / "page.html"), "--fail-if", "p99_ms>0"),
    )

    assert again.returncode == 1
    assert again.stderr.count("FAILED") == 1
    assert "p99_ms>0" in again.stderr
    earlier, later = json.loads((tmp_path / "first.json").read_text()), report_of(again)
    assert counts_of(later) == counts_of(earlier)
    assert [span["requests"] for span in later["models"]] == [span["requests"] for span in earlier["models"]]
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")


def test_stall_is_seen_from_the_intended_send_time_and_hidden_from_the_actual_one(
    serial: Server, tmp_path: Path
) -> None:
    """One request at a time and one slow image in twenty: those behind it are late, though each is answered fast."""
    for number in range(19):
        (tmp_path / f"{number}.png").write_bytes(red_png(number))
    (tmp_path / "slow.png").write_bytes(SLOW_PNG)

    result = call_saccade(
        *("bench", serial.base_url, "classifier", "--images", str(tmp_path), "--rate", "100", "--requests", "40"),
        *("--arrivals", "constant", "--warm-up-s", "0", "--max-in-flight", "1", "--json", "-"),
    )

    report = report_of(result)
    assert report["ok"] == 40
    assert report["service"]["max_ms"] >= 1000 * SLOW_S
    assert report["service"]["p50_ms"] < report["latency"]["p50_ms"] > 1000 * SLOW_S / 4
    assert "--max-in-flight" in report["client"]["note"]


def test_closed_loop_sends_the_number_it_was_asked_for(serial: Server, images: Path) -> None:
    result = call_saccade(
        *("bench", serial.base_url, "segmenter", "--images", str(images), "--closed", "4", "--requests", "60"),
        *("--warm-up-s", "0.1", "--processes", "2"),
    )

    assert result.returncode == 0, result.stderr
    assert "requests     60 = " in result.stdout


def test_search_counts_failed_requests_as_late(serial: Server, images: Path) -> None:
    result = call_saccade(
        *("bench", serial.base_url, "classifier", "--images", str(images), "--find-slo", "--objective-ms", "9000"),
        *("--rate", "400", "--max-rate", "400", "--trial-s", "0.8", "--warm-up-s", "0", "--json", "-"),
        *("--plan", "5000"),
    )

    slo, plan = report_of(result)["slo"], report_of(result)["plan"]
    assert (plan["rate_rps"], plan["replica_rps"], plan["replicas"]) == (5000, None, 0)
    assert result.returncode == 1, "every fifth request fails, so no rate can meet it"
    assert slo["rate_rps"] is None
    assert {trial["verdict"] for trial in slo["trials"]} == {"missed"}
    assert slo["trials"][0]["late_ratio"] == pytest.approx(0.2, abs=0.01)


def test_interrupt_reports_what_was_measured(serial: Server, images: Path, tmp_path: Path) -> None:
    before = serial.outcomes("ok")
    command = [
        *(sys.executable, "-m", "saccade.service", "bench", serial.base_url, "classifier", "--images", str(images)),
        *("--rate", "100", "--duration-s", "600", "--warm-up-s", "0", "--json", "-", "--processes", "2"),
    ]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        wait_until(lambda: serial.outcomes("ok") > before + 20, what="the load runs")
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the group
        output, errors = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()

    assert output, errors
    assert process.returncode == 1
    report = json.loads(output)
    assert report["load"]["ending"] == "interrupted"
    assert report["requests"] == report["ok"] + report["failed"] > 20
    assert 0 < report["load"]["window_s"] < 60
    assert "interrupted" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("url", "model", "message"),
    [
        ("http://127.0.0.1:1", "classifier", "is `saccade serve` running?"),
        (None, "nobody", "classifier, detector, segmenter"),
    ],
)
def test_load_that_cannot_begin_says_what_to_do(
    serial: Server, images: Path, url: str | None, model: str, message: str
) -> None:
    result = call_saccade("bench", url or serial.base_url, model, "--images", str(images), "--rate", "1")

    assert result.returncode == 1
    assert message in result.stderr


def test_wrong_usage_exits_2(serial: Server, images: Path) -> None:
    result = call_saccade("bench", serial.base_url, "classifier", "--images", str(images))

    assert result.returncode == 2
    assert "at which rate" in result.stderr


def test_server_that_stops_midway_is_counted_not_raised(three_models: Path, images: Path, tmp_path: Path) -> None:
    with running_server(three_models, tmp_path) as server:
        process = subprocess.Popen(
            [
                *(
                    sys.executable,
                    "-m",
                    "saccade.service",
                    "bench",
                    server.base_url,
                    "classifier",
                    "--images",
                    str(images),
                ),
                *("--rate", "200", "--requests", "900", "--warm-up-s", "0", "--json", "-"),
            ],
            cwd=ROOT,
            env=clean_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        wait_until(lambda: server.outcomes("ok") > 20, what="the load runs")
        os.killpg(process.pid, signal.SIGSTOP)  # so that some of its requests find no server
        server.stop()
        os.killpg(process.pid, signal.SIGCONT)
    output, errors = process.communicate(timeout=60)

    report = json.loads(output)
    assert report["requests"] == 900 == report["ok"] + report["failed"]
    assert any(label.startswith("connection: ") for label in counts_of(report))
    assert process.returncode == 0, errors
