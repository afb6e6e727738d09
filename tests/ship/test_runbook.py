"""k8s/README.md: a section for each alert, paths, settings and commands that exist, an example that renders."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
import pytest
import yaml

from saccade.service.cli.program import saccade
from saccade.service.settings import NOT_SETTINGS, PREFIX, Settings, settings_from
from tests.ship.kustomize import identity, render

ROOT = Path(__file__).resolve().parents[2]
RUNBOOK = (ROOT / "k8s/README.md").read_text("utf-8")
PROJECT_PATH = re.compile(
    r"\b(?:(?:k8s|tests|service(?!/saccade\b)|export|models)/[\w./-]*\w/?|Dockerfile|docker-compose\.yml|constraints\.txt)"
)
# Variables that look like settings and are spoken of as a family.
FAMILIES = {"SACCADE_"}


def headings() -> list[str]:
    return re.findall(r"^#+ (.*)$", RUNBOOK, re.MULTILINE)


def anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def test_every_path_exists() -> None:
    paths = set(PROJECT_PATH.findall(RUNBOOK))

    assert len(paths) > 10
    assert sorted(path for path in paths if not (ROOT / path).exists()) == []


def test_every_alert_has_a_section_and_no_section_outlives_its_alert() -> None:
    alerts = [
        rule["alert"]
        for group in yaml.safe_load((ROOT / "k8s/monitoring/alerts.yml").read_text("utf-8"))["groups"]
        for rule in group["rules"]
        if "alert" in rule
    ]

    assert [heading for heading in headings() if heading.startswith("Saccade")] == alerts


def test_every_link_leads_to_a_heading() -> None:
    links = set(re.findall(r"\]\(#([^)]+)\)", RUNBOOK))

    assert links - {anchor(heading) for heading in headings()} == set()


def test_every_setting_it_names_exists() -> None:
    named = set(re.findall(r"\bSACCADE_[A-Z_]*", RUNBOOK)) - FAMILIES

    assert {name.removeprefix(PREFIX).lower() for name in named - NOT_SETTINGS} <= set(Settings.model_fields)


def test_figures_it_repeats_are_those_of_the_manifests() -> None:
    (deployment,) = [item for item in render(ROOT / "k8s/base") if item["kind"] == "Deployment"]
    (config_map,) = [item for item in render(ROOT / "k8s/base") if item["kind"] == "ConfigMap"]
    pod = deployment["spec"]["template"]["spec"]
    settings = settings_from(config_map["data"])

    assert f"grace period ({pod['terminationGracePeriodSeconds']} s)" in RUNBOOK
    assert f"`SACCADE_DRAIN_DELAY_MS`, {settings.drain_delay_ms / 1000:g} s" in RUNBOOK
    assert f"`SACCADE_SHUTDOWN_TIMEOUT_MS`, {settings.shutdown_timeout_ms / 1000:g} s" in RUNBOOK
    assert f"limit is {pod['containers'][0]['resources']['limits']['memory'].removesuffix('Gi')} GiB" in RUNBOOK
    assert f"`SACCADE_HANG_TIMEOUT_MS` ({settings.hang_timeout_ms / 1000:g} s)" in RUNBOOK


def test_every_command_of_saccade_exists() -> None:
    named = set(
        re.findall(
            r"(?<![\w-])(?<!--namespace )saccade (rollout|repository|doctor|predict|bench|serve)(?: ([a-z-]+))?",
            RUNBOOK,
        )
    )
    groups = {
        name: set(command.commands) for name, command in saccade.commands.items() if isinstance(command, click.Group)
    }

    assert {group for group, _ in named} <= set(saccade.commands)
    assert {command for group, command in named if group in groups and command} <= set().union(*groups.values())


def kubectl_commands() -> list[list[str]]:
    """The words of every kubectl command of the runbook, without its namespace."""
    texts = re.findall(r"`(kubectl [^`]+)`", RUNBOOK)
    texts += re.findall(r"^(kubectl [^#\n]+)", RUNBOOK, re.MULTILINE)
    commands = []
    for text in texts:
        words = shlex.split(text.split("|")[0])[1:]
        while "--namespace" in words:
            place = words.index("--namespace")
            del words[place : place + 2]
        commands.append(words)
    return commands


def test_every_patch_fits_what_is_rendered() -> None:
    rendered = {identity(item): item for item in render(ROOT / "k8s/base") + render(ROOT / "k8s/overlays/gpu")}
    kinds = {"hpa": "HorizontalPodAutoscaler", "scaledobject": "ScaledObject"}
    patches = [words for words in kubectl_commands() if words[0] == "patch"]

    assert len(patches) == 2
    for _, kind, name, *options in patches:
        spec = json.loads(options[-1])["spec"]
        assert set(spec) <= set(rendered[kinds[kind], name]["spec"])


@pytest.mark.parametrize("words", kubectl_commands(), ids=" ".join)
def test_every_kubectl_command_names_what_is_rendered(words: list[str]) -> None:
    names = {identity(item) for folder in ("base", "publish") for item in render(ROOT / "k8s" / folder)}
    kinds = {"deployment": "Deployment", "service": "Service", "job": "Job"}
    named = [part.split("/") for part in words if part.split("/")[0] in kinds and "/" in part]
    folders = [words[place + 1] for place, word in enumerate(words[:-1]) if word == "--kustomize"]

    assert all((kinds[kind], name) in names for kind, name in named)
    assert all((ROOT / folder / "kustomization.yaml").is_file() for folder in folders)


def deployment_with(setting: str, tmp_path: Path) -> dict[str, Any]:
    """The base deployment under the one example that names a setting."""
    (example,) = [text for text in re.findall(r"```yaml\n(.*?)```", RUNBOOK, re.DOTALL) if setting in text]
    shutil.copytree(ROOT / "k8s/base", tmp_path / "base")
    overlay = tmp_path / "overlay"
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text(f"resources: [../base]\n{example}", "utf-8")
    deployment: dict[str, Any]
    (deployment,) = [item for item in render(overlay) if item["kind"] == "Deployment"]
    kubernetes_validate.validate(deployment, kubernetes_validate.latest_version(), strict=True)
    return deployment


def settings_of(container: dict[str, Any]) -> Settings:
    return settings_from({item["name"]: item["value"] for item in container["env"] if "value" in item})


def test_api_key_example_renders_and_names_a_setting(tmp_path: Path) -> None:
    deployment = deployment_with("SACCADE_API_KEYS_FILE", tmp_path)
    (container,) = deployment["spec"]["template"]["spec"]["containers"]

    assert str(settings_of(container).api_keys_file).startswith(container["volumeMounts"][0]["mountPath"])
    assert len(container["volumeMounts"]) == 3


def test_signature_example_mounts_the_keys_it_trusts_and_requires_signatures(tmp_path: Path) -> None:
    deployment = deployment_with("SACCADE_TRUSTED_KEYS", tmp_path)
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    settings = settings_of(container)

    assert settings.require_signature
    assert [str(path) for path in settings.trusted_keys] == [container["volumeMounts"][0]["mountPath"]]
    assert pod["volumes"][0]["configMap"] == {"name": "saccade-trusted-keys"}
    assert "create configmap saccade-trusted-keys" in RUNBOOK
