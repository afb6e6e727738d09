"""Versions that kill workers or answer 500: they lose their traffic by themselves, and the others go on."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from saccade.service.backends.fake_backend import (
    CRASH_ON_ANSWER,
    FAIL_ON_ANSWER,
    HANG_IN_WARM_UP,
    NOT_FINITE_ON_ANSWER,
)
from tests.support.images import CRASH_PNG, red_png
from tests.support.requests import Background
from tests.support.server import Server, call_saccade, running_server, wait_until
from tests.support.versions import publish_fake

MODEL, OTHER = "digits", "letters"
CRASHED = 13  # the fake backend's exit code
TWO_DEVICES = {"device": "cpu:0,cpu:1"}


@dataclass
class Ledger:
    """Every request's time, status and version."""

    answers: list[tuple[float, int, str]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    details: list[str] = field(default_factory=list)  # of failures

    def failures(self) -> Counter[int]:
        return Counter(status for _, status, _ in self.answers if status != 200)

    def gap_s(self) -> float:
        """The longest time in which a request failed and none succeeded."""
        good = [at for at, status, _ in self.answers if status == 200]
        return max((later - earlier for earlier, later in pairwise(good)), default=0.0)

    def p99_ms(self) -> float:
        return 1000 * sorted(self.seconds)[int(0.99 * len(self.seconds))]


@contextmanager
def flowing(server: Server, model: str, patience: int | None = None) -> Iterator[Ledger]:
    """One client that asks again and again, with a routing key of its own each time.

    Behind so many failures (`patience`) it waits until version 2 is quarantined, however long the supervisor takes.
    """
    ledger, stop = Ledger(), threading.Event()

    def flow() -> None:
        with httpx.Client(base_url=server.base_url, timeout=30.0) as client:
            headers = {"Content-Type": "application/octet-stream"}
            for number in range(1_000_000):
                if stop.is_set():
                    return
                start_s = time.monotonic()
                keyed = {**headers, "X-Routing-Key": str(number)}
                answer = client.post(f"/v1/models/{model}/predict", content=red_png(number % 200), headers=keyed)
                ledger.seconds.append(time.monotonic() - start_s)
                version = answer.json().get("version", "")
                ledger.answers.append((time.monotonic(), answer.status_code, version))
                if answer.status_code != 200:
                    ledger.details.append(answer.text)
                if len(ledger.details) == patience and answer.status_code != 200:
                    server.wait_state(model, 2, "quarantined")

    with Background() as background:
        client = background.start(flow)
        wait_until(lambda: len(ledger.answers) > 20 or client.done(), what="requests flow")
        try:
            yield ledger
        finally:
            stop.set()
        client.result()


def canary(server: Server, repository: Path, version: int, *waiting: str, share: str = "0.2") -> None:
    options = ("--repository", str(repository), "--url", server.base_url, MODEL)
    ended = call_saccade("rollout", "canary", *options, str(version), "--share", share, *waiting)
    assert ended.returncode == 0, ended.stderr


def promote(server: Server, repository: Path, version: int, *waiting: str) -> None:
    options = ("--repository", str(repository), "--url", server.base_url, MODEL)
    ended = call_saccade("rollout", "promote", *options, str(version), *waiting)
    assert ended.returncode == 0, ended.stderr


def answers_again(server: Server, ledger: Ledger, more: int = 50) -> None:
    """Waits until requests were answered after what happened."""
    count = len(ledger.answers)
    wait_until(lambda: len(ledger.answers) > count + more, 60.0, "requests go on")


def test_canary_that_kills_its_worker_loses_its_traffic_while_the_other_device_answers(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    publish_fake(root, MODEL, 1)
    publish_fake(root, OTHER, 1)
    with running_server(root, tmp_path, **TWO_DEVICES) as server:
        promote(server, root, 1, "--wait")
        publish_fake(root, MODEL, 2, content=CRASH_ON_ANSWER)
        with flowing(server, MODEL, patience=1) as ledger, flowing(server, OTHER) as other:
            canary(server, root, 2)
            found = server.wait_state(MODEL, 2, "quarantined")
            answers_again(server, ledger)
        print(
            f"canary: failed {ledger.failures()}, longest gap {1000 * ledger.gap_s():.0f} ms; other {other.failures()}"
        )

        assert "it killed its worker while it answered" in found["reason"]
        # What was in the worker that ended: this client's request, and perhaps one of the other model.
        assert [event["exit_code"] for event in server.events("worker_died")] == [CRASHED]
        assert ledger.failures() == {503: 1}
        assert other.failures().total() <= 1, other.details
        assert {version for _, status, version in ledger.answers if status == 200} == {"1"}

        # Who names it is told; status and metric say so too.
        refused = server.predict(MODEL, red_png(1), path="versions/2/predict")
        assert refused.status_code == 503
        assert "version 2 is quarantined (it killed its worker" in refused.json()["detail"]
        status = call_saccade(
            "rollout", "status", MODEL, "--repository", str(root), "--served", "--url", server.base_url
        )
        assert "version 2 is quarantined: it killed its worker" in status.stdout
        assert server.metric("saccade_model_state", model=MODEL, version="2", state="quarantined") == 1
        (event,) = server.events("version_quarantined")
        assert (event["model"], event["version"]) == (MODEL, 2)
        server.wait_ready()

        # and a newer desired state that names it has it tried again
        canary(server, root, 2, "--wait", share="0.1")
        assert server.version(MODEL, 2)["state"] == "ready"  # type: ignore[index]


@pytest.mark.parametrize(
    ("content", "words"),
    [(FAIL_ON_ANSWER, "were answered 500; of"), (NOT_FINITE_ON_ANSWER, "for answers that are no finite numbers")],
)
def test_canary_that_answers_500_loses_its_traffic(tmp_path: Path, content: bytes, words: str) -> None:
    root = tmp_path / "repository"
    publish_fake(root, MODEL, 1)
    with running_server(root, tmp_path) as server:
        promote(server, root, 1, "--wait")
        publish_fake(root, MODEL, 2, content=content)
        with flowing(server, MODEL, patience=50) as ledger:
            canary(server, root, 2)
            found = server.wait_state(MODEL, 2, "quarantined")
            answers_again(server, ledger)
        print(f"{content!r}: failed {ledger.failures()}")

    assert words in found["reason"]
    assert 5 <= ledger.failures().total() == ledger.failures()[500] <= 50
    assert all(status == 200 for _, status, _ in ledger.answers[-50:])


def test_promoted_version_that_fails_gives_way_to_the_one_before_without_a_load(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    publish_fake(root, MODEL, 1)
    with running_server(root, tmp_path, versions_per_model=1) as server:
        promote(server, root, 1, "--wait")
        publish_fake(root, MODEL, 2, content=FAIL_ON_ANSWER)
        with flowing(server, MODEL) as ledger:
            promote(server, root, 2)
            server.wait_state(MODEL, 2, "quarantined")
            answers_again(server, ledger)
        print(f"promoted: failed {ledger.failures()}, longest gap {1000 * ledger.gap_s():.0f} ms")

        assert ledger.answers[-1][1:] == (200, "1")
        assert server.model(MODEL)["default_version"] == "1"
        assert len(server.events("version_ready")) == 2


def serving_devices(server: Server) -> int:
    version = server.version(OTHER, 1)
    return sum(item["state"] == "ready" for item in version["instances"]) if version else 0


def test_version_that_kills_its_worker_twice_is_quarantined_and_another_model_goes_on(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    publish_fake(root, MODEL, 1)
    publish_fake(root, OTHER, 1)
    with running_server(root, tmp_path, **TWO_DEVICES) as server:
        with flowing(server, OTHER) as calm:
            answers_again(server, calm, 300)
        with flowing(server, OTHER) as other:
            for number in (1, 2):
                assert server.predict(MODEL, CRASH_PNG).status_code == 503
                wait_until(lambda number=number: server.metric("saccade_worker_restarts_total") == number, what="lost")
                wait_until(lambda: serving_devices(server) == 2, what="both devices serve the other model again")
            found = server.wait_state(MODEL, 1, "quarantined")
            answers_again(server, other, 300)
        print(f"other: p99 {calm.p99_ms():.1f} -> {other.p99_ms():.1f} ms, failed {other.failures()}")

        assert "it killed its worker 2 times within 10 minutes" in found["reason"]
        assert other.failures().total() <= 2  # in the workers that ended
        assert "version 1 is quarantined" in server.predict(MODEL, CRASH_PNG).json()["detail"]
        assert server.metric("saccade_worker_restarts_total") == 2  # nobody can kill a third
        server.wait_ready()


def test_version_that_hangs_in_its_first_run_is_given_up_soon_and_readiness_stays(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    publish_fake(root, OTHER, 1)
    with running_server(root, tmp_path, **TWO_DEVICES, hang_timeout_ms=6000) as server:
        with flowing(server, OTHER) as ledger:
            publish_fake(root, MODEL, 1, content=HANG_IN_WARM_UP)
            server.wait_state(MODEL, 1, "warming")
            assert server.readiness().status_code == 200
            found = server.wait_state(MODEL, 1, "quarantined")
            answers_again(server, ledger)
        print(f"hang in warm-up: failed {ledger.failures()}, longest gap {1000 * ledger.gap_s():.0f} ms")

        assert "it made its worker hang while it was loaded" in found["reason"]
        assert server.metric("saccade_worker_restarts_total") == 1  # it was tried on one device, and once
        server.wait_ready()
