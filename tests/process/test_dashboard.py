"""Every panel of the dashboard shows something: a real Prometheus scrapes a real server and is asked what Grafana asks.

Plans are built on GPUs alone; their metrics come from the same exposition without a server behind it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client import CollectorRegistry

from saccade.service.ipc.messages import Catalog, EngineStatus, VersionStatus
from saccade.service.metrics import MULTIPROCESS_DIR, Metrics
from tests.support.images import NOT_FINITE_PNG, POISON_PNG, red_png
from tests.support.ports import free_port
from tests.support.server import Server, call_saccade, running_server, wait_until
from tests.support.trace_collector import running_collector
from tests.support.versions import manifest_for, publish, publish_fake, with_variants

pytest.importorskip("opentelemetry.sdk.trace", reason="the tracing extra is not installed")

DASHBOARD = Path(__file__).resolve().parents[2] / "k8s/monitoring/grafana/dashboards/saccade.json"
MODEL, SHADOWED = "ladder", "shadowed"
_RATE_INTERVAL = "20s"  # of scrapes each second


_NOT_ASKED = ("Unfamiliar pictures",)  # versions of the fake backend have no such output


def expressions() -> dict[str, str]:
    panels = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    return {
        f"{panel['title']} {target['refId']} ({panel['id']})": target["expr"]
        .replace("$__rate_interval", _RATE_INTERVAL)
        .replace("$model", ".*")
        for panel in panels
        if panel["title"] not in _NOT_ASKED
        for target in panel.get("targets", [])
    }


@contextmanager
def prometheus(folder: Path, targets: list[str]) -> Iterator[httpx.Client]:
    """A Prometheus that scrapes these each second, asked by the client."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed (Debian: prometheus)")
    scraped = {"job_name": "saccade", "static_configs": [{"targets": targets}]}
    config = {"global": {"scrape_interval": "1s"}, "scrape_configs": [scraped]}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), "utf-8")
    address = f"127.0.0.1:{free_port()}"
    places = [f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
    with subprocess.Popen(
        [program, *places, f"--web.listen-address={address}", "--log.level=error"], stdout=subprocess.DEVNULL
    ) as process:
        try:
            with httpx.Client(base_url=f"http://{address}") as client:
                yield client
        finally:
            process.terminate()


@contextmanager
def plans_of_a_gpu(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of metrics of a server that builds a plan."""
    monkeypatch.delenv(MULTIPROCESS_DIR, raising=False)
    engine = EngineStatus("cuda:0", "fp16", "building", "measuring", 0.5)
    version = VersionStatus("m", 1, "", "d", "ready", "", "fp32", engines=(engine,))
    (folder / "metrics").write_bytes(
        Metrics(CollectorRegistry()).exposition(lambda: Catalog(1, (), (version,), False, models=()))
    )
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Texts, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class _Texts(SimpleHTTPRequestHandler):
    def guess_type(self, path: Any) -> str:
        return "text/plain"

    def log_message(self, format: str, *arguments: Any) -> None:
        """Says nothing."""


def published(root: Path) -> Path:
    """A version with a ladder, and a stable one with another in its shadow."""
    publish(root, with_variants(manifest_for(MODEL, 1), fp32=(0.95, 25), int8_cpu=(0.94, 500)))
    for version in (1, 2):
        publish_fake(root, SHADOWED, version)
    for command in (("promote", SHADOWED, "1"), ("shadow", SHADOWED, "2", "--sample", "1")):
        assert call_saccade("rollout", *command, "--repository", str(root)).returncode == 0
    return root


def ask_everything(server: Server) -> None:
    """A request of every outcome that a panel shows."""
    for model in (MODEL, SHADOWED):
        for picture in (red_png(7), red_png(8), b"no picture", POISON_PNG, NOT_FINITE_PNG):
            server.predict(model, picture)
    server.predict(MODEL, red_png(9), params={"deadline_ms": "1"})


def test_every_panel_shows_something(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        plans = stack.enter_context(plans_of_a_gpu(tmp_path, monkeypatch))
        collector = stack.enter_context(running_collector())
        settings = {"ladder": "auto", "load_models": "on_demand", "pinned_models": SHADOWED}
        server = stack.enter_context(
            running_server(published(tmp_path / "repository"), tmp_path, environment=collector.environment, **settings)
        )
        asked = stack.enter_context(prometheus(tmp_path, [f"127.0.0.1:{server.port}", plans]))
        missing = expressions()

        def are_all_shown() -> bool:
            ask_everything(server)
            for panel, expression in list(missing.items()):
                try:
                    answer = asked.get("/api/v1/query", params={"query": expression})
                except httpx.TransportError:  # it has not begun to listen
                    return False
                if answer.status_code == 503:  # it listens, and is not ready
                    return False
                document = answer.json()
                assert document["status"] == "success", f"{panel}: {document}"
                if any(result["value"][1] != "NaN" for result in document["data"]["result"]):
                    del missing[panel]
            return not missing

        with suppress(AssertionError):
            wait_until(are_all_shown, 60.0)
        assert [*missing] == []
