"""docker-compose.yml: what it mounts exists, the server is confined, Prometheus and Grafana find what they need."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from saccade.export.publish.samples import SAMPLES_DIR
from saccade.models.contract.specs import Task
from saccade.service.api.tracing.setup import is_asked_for
from saccade.service.cli.bench import bench
from saccade.service.settings import Settings, settings_from

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def mounts(service: str) -> dict[str, str]:
    """Container path by host path of the short and the long form."""
    found = {}
    for volume in SERVICES[service].get("volumes", []):
        source, target = (volume["source"], volume["target"]) if isinstance(volume, dict) else volume.split(":")[:2]
        found[source] = target
    return found


def settings() -> Settings:
    return settings_from(SERVICES["saccade"]["environment"])


def seconds(duration: str) -> int:
    return int(duration.removesuffix("s"))


@pytest.mark.parametrize("service", SERVICES)
def test_mounted_files_exist(service: str) -> None:
    paths = [source for source in mounts(service) if source.startswith(".")]

    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("service", SERVICES)
def test_named_volumes_are_declared(service: str) -> None:
    named = {source for source in mounts(service) if not source.startswith((".", "/"))}

    assert named <= set(COMPOSE.get("volumes", {}))


@pytest.mark.parametrize("service", SERVICES)
def test_images_are_pinned(service: str) -> None:
    if "build" not in SERVICES[service]:
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", SERVICES[service]["image"])


@pytest.mark.parametrize("service", SERVICES)
def test_ports_are_for_this_machine_only(service: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[service].get("ports", ()))


@pytest.mark.parametrize("name", ["saccade", "saccade-gpu", "saccade-traced"])
def test_server_is_confined(name: str) -> None:
    service = SERVICES[name]
    repository, tuning = service["volumes"]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert repository["read_only"] is True
    assert repository["target"] == "/repository"
    assert tuning["target"] == "/repository/.tuning"


def test_first_start_needs_nothing_but_this_folder() -> None:
    models, server = SERVICES["models"], SERVICES["saccade"]
    recipes = [word for word in models["command"] if word.endswith(".yaml")]
    options = dict(word.removeprefix("--").split("=", 1) for word in models["command"] if "=" in word)
    written = {volume["target"]: volume["source"] for volume in models["volumes"]}

    assert server["depends_on"]["models"]["condition"] == "service_completed_successfully"
    assert [recipe for recipe in recipes if not (ROOT / recipe).is_file()] == []
    assert written[options["repository"]] == server["volumes"][0]["source"]
    assert options["work"] in written
    assert not [volume for volume in models["volumes"] + server["volumes"] if volume["type"] != "volume"]
    assert models["network_mode"] == "none"


@pytest.mark.parametrize("name", ["models", "saccade", "saccade-gpu", "saccade-traced"])
def test_volumes_are_mounted_where_the_image_has_folders_of_its_user(name: str) -> None:
    """A new volume belongs to root unless the image has the folder."""
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    stage = dockerfile.split(f" AS {SERVICES[name]['build']['target']}\n")[1].split("\nFROM ")[0]
    (made,) = re.findall(r"install --directory --owner=10001 --group=10001 (.*)", stage)

    assert {volume["target"] for volume in SERVICES[name]["volumes"]} <= set(made.split())


def test_gpu_server_runs_only_when_asked_for_and_beside_the_other_one() -> None:
    service = SERVICES["saccade-gpu"]

    assert service["profiles"] == ["gpu"]
    assert set(service["ports"]).isdisjoint(SERVICES["saccade"]["ports"])
    assert settings_from(service["environment"]).device == "cuda:0"


def test_load_is_options_that_the_command_has_and_pictures_that_the_first_start_writes() -> None:
    service, models = SERVICES["load"], SERVICES["models"]
    program, url, model, *options = service["command"]
    given = dict(word.removeprefix("--").split("=", 1) for word in options)
    known = {option.name.replace("_", "-") for option in bench.params if option.name is not None}

    assert (program, service["profiles"]) == ("bench", ["load"])
    assert urlsplit(url).hostname in SERVICES
    assert f"models/recipes/{model}.yaml" in models["command"]
    assert set(given) <= known
    assert given["images"] == f"{service['volumes'][0]['target']}/{SAMPLES_DIR}/{Task.DETECT.value}"
    assert service["volumes"][0]["source"] == models["volumes"][0]["source"]


def test_traced_server_sends_to_jaeger_and_its_image_has_the_extra() -> None:
    service = SERVICES["saccade-traced"]
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    address = urlsplit(service["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"])

    assert service["profiles"] == SERVICES[address.hostname]["profiles"] == ["tracing"]
    assert address.port == 4318  # OTLP over HTTP, on which Jaeger listens
    assert is_asked_for(service["environment"])
    assert set(service["ports"]).isdisjoint([*SERVICES["saccade"]["ports"], *SERVICES["saccade-gpu"]["ports"]])
    assert re.search(r"image_requirements\.py cpu object-store tracing >", dockerfile)


def test_health_check_is_python_that_asks_for_ready() -> None:
    *_, program = SERVICES["saccade"]["healthcheck"]["test"]

    compile(program, "healthcheck", "exec")
    assert '"/health/ready"' in program


def test_grace_period_leaves_time_to_finish() -> None:
    drain_s = (settings().drain_delay_ms + settings().shutdown_timeout_ms) / 1000

    assert seconds(SERVICES["saccade"]["stop_grace_period"]) >= drain_s + 5


def test_bounds_are_those_of_kubernetes() -> None:
    """They were sized together with the same memory limit."""
    lines = (ROOT / "k8s/base/settings.env").read_text("utf-8").splitlines()
    data = dict(line.split("=", 1) for line in lines if not line.startswith("#"))

    assert SERVICES["saccade"]["environment"].items() <= data.items()
    assert SERVICES["saccade"]["mem_limit"] == "4g"


def test_prometheus_scrapes_the_server_by_its_name_and_port() -> None:
    prometheus = yaml.safe_load((ROOT / "k8s/monitoring/prometheus.yml").read_text("utf-8"))
    targets = [
        target for job in prometheus["scrape_configs"] for part in job["static_configs"] for target in part["targets"]
    ]

    assert targets == [f"saccade:{settings().port}"]
    assert "saccade" in SERVICES
    assert set(prometheus["rule_files"]) <= {Path(target).name for target in mounts("prometheus").values()}


def test_grafana_reads_dashboards_where_they_are_mounted() -> None:
    provider = yaml.safe_load((ROOT / "k8s/monitoring/grafana/provisioning/dashboards/saccade.yml").read_text("utf-8"))
    (entry,) = provider["providers"]
    source = yaml.safe_load(
        (ROOT / "k8s/monitoring/grafana/provisioning/datasources/prometheus.yml").read_text("utf-8")
    )

    assert entry["options"]["path"] == mounts("grafana")["./k8s/monitoring/grafana/dashboards"]
    assert source["datasources"][0]["url"] == "http://prometheus:9090"
    assert "prometheus" in SERVICES
