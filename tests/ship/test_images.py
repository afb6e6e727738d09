"""The images: what the Dockerfile says is true of the project, and what others say of the Dockerfile is true."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from saccade.service.settings import settings_from
from tests.ship.kustomize import render

ROOT = Path(__file__).resolve().parents[2]
IMAGE = ROOT / "k8s/image"
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
TARGETS = ("serve-cpu", "serve-gpu", "export")
SERVING = ("serve-cpu", "serve-gpu")
_FROM = re.compile(r"^FROM (\S+) AS (\S+)$", re.MULTILINE)


def stages() -> dict[str, str]:
    """Text of each stage by name."""
    parts = _FROM.split(DOCKERFILE)
    return {name: text for _, name, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True)}


def instruction(stage: str, name: str) -> str:
    """The last instruction of that name, on one line."""
    text = stages()[stage].replace("\\\n", " ")
    return re.findall(rf"^{name} (.*)$", text, re.MULTILINE)[-1]


def environment(stage: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in shlex.split(instruction(stage, "ENV")))


def requirement_calls() -> list[list[str]]:
    """Arguments of each call of image_requirements.py."""
    return [call.split() for call in re.findall(r"image_requirements\.py ([^>\n]+?) >", DOCKERFILE)]


def pinned_names() -> set[str]:
    return set(re.findall(r"^([a-z0-9][a-z0-9._-]*)==", (ROOT / "constraints.txt").read_text("utf-8"), re.MULTILINE))


def required(*arguments: str) -> list[str]:
    command = [sys.executable, str(IMAGE / "image_requirements.py"), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()


def name_of(requirement: str) -> str:
    return re.split(r"[\[<>=!~]", requirement)[0].strip()


def test_targets_are_there_and_last_of_their_line() -> None:
    assert set(TARGETS) <= set(stages())


@pytest.mark.parametrize("target", TARGETS)
def test_target_runs_as_a_numbered_user_that_is_not_root(target: str) -> None:
    assert instruction(target, "USER") == "10001:10001"


@pytest.mark.parametrize("target", SERVING)
def test_serving_target_starts_the_server(target: str) -> None:
    assert instruction(target, "ENTRYPOINT") == '["saccade"]'
    assert instruction(target, "CMD") == '["serve"]'
    assert instruction(target, "STOPSIGNAL") == "SIGTERM"
    assert instruction(target, "EXPOSE") == "8000"


def test_entry_points_are_programs_of_the_project() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]

    assert {f'["{name}"]' for name in scripts} == {instruction(target, "ENTRYPOINT") for target in TARGETS}


@pytest.mark.parametrize("target", SERVING)
def test_environment_of_a_serving_target_is_valid_settings(target: str) -> None:
    settings = settings_from(environment(target))

    assert (settings.host, str(settings.repository), settings.log_format) == ("0.0.0.0", "/repository", "json")
    assert settings.device == ("cuda:0" if target == "serve-gpu" else "cpu")


@pytest.mark.parametrize("target", TARGETS)
def test_onnx_runtime_sends_no_telemetry(target: str) -> None:
    """Since 1.31 it writes a device id and uploads events unless told not to."""
    assert environment(target)["ORT_DISABLE_TELEMETRY"] == "1"


def test_health_checks_are_python_that_asks_for_live() -> None:
    checks = re.findall(r'CMD \["python3", "-c", "(.*)"\]', DOCKERFILE)

    assert len(checks) == len(SERVING)
    for check in checks:
        compile(check, "HEALTHCHECK", "exec")
        assert "'/health/live'" in check


def test_no_serving_image_asks_for_torch() -> None:
    calls = requirement_calls()

    assert sorted(call[0] for call in calls) == ["cpu", "cpu", "gpu"]
    for call in calls:
        names = {name_of(line) for line in required(*call)}
        assert ("torch" in names) == ("export" in call)


def test_every_image_installs_only_what_is_pinned() -> None:
    pinned = pinned_names()

    for call in requirement_calls():
        assert {name_of(line) for line in required(*call)} <= pinned


def test_every_installation_checks_hashes_or_stays_offline() -> None:
    text = DOCKERFILE.replace("\\\n", " ")
    installations = re.findall(r"pip (?:--python \S+ )?(?:install|wheel) [^&\n]*", text)

    assert installations
    assert all("--require-hashes" in line or "--no-index" in line for line in installations)


def test_build_requirements_are_pinned_and_hashed() -> None:
    text = (IMAGE / "build_requirements.txt").read_text("utf-8")
    entries = [entry for entry in re.split(r"^(?=[a-z])", text, flags=re.MULTILINE) if not entry.startswith("#")]

    assert {"pip", "hatchling"} <= {entry.split("==")[0] for entry in entries}
    assert all("==" in entry and "--hash=sha256:" in entry for entry in entries)


def test_unknown_extra_is_refused() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        required("nothing")


def test_build_context_has_what_is_copied() -> None:
    """Paths of COPY exist and .dockerignore lets them through."""
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")]
    copied = [
        source for line in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE) for source in line.split()
    ]

    assert [source for source in copied if not (ROOT / source).exists()] == []
    assert [
        source for source in copied if not any(source == top or source.startswith(f"{top}/") for top in allowed)
    ] == []


@pytest.mark.parametrize(
    ("target", "expected", "unwanted"),
    [
        ("serve-cpu", {"tools", "wheel", "packages-cpu"}, {"packages-export", "packages-gpu"}),
        ("serve-gpu", {"tools", "wheel", "packages-gpu"}, {"packages-export", "packages-cpu"}),
        ("export", {"tools", "wheel", "packages-export"}, {"packages-cpu", "packages-gpu"}),
    ],
)
def test_only_the_stages_of_a_target_are_built(target: str, expected: set[str], unwanted: set[str]) -> None:
    command = [sys.executable, str(IMAGE / "stages_of.py"), target]
    result = subprocess.run(command, input=DOCKERFILE, capture_output=True, text=True, check=True)
    names = [name for _, name in _FROM.findall(result.stdout)]

    assert names[-1] == target
    assert expected <= set(names)
    assert unwanted.isdisjoint(names)


def test_images_of_the_manifests_and_of_compose_are_targets() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"].values()
    built = [service for service in services if "build" in service]
    pods: list[dict[str, Any]] = []
    for folder in ("base", "overlays/dev", "overlays/gpu", "publish"):
        resources = render(ROOT / "k8s" / folder)
        pods += [item["spec"]["template"]["spec"] for item in resources if item["kind"] in ("Deployment", "Job")]
    images = {container["image"] for pod in pods for container in pod["containers"]}

    assert images == {service["image"] for service in built} == {f"saccade:{target}" for target in TARGETS}
    assert all(service["image"] == f"saccade:{service['build']['target']}" for service in built)


@pytest.mark.parametrize("script", sorted(IMAGE.glob("*.sh")), ids=lambda path: path.name)
def test_script_is_executable_and_parses(script: Path) -> None:
    assert script.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", str(script)], check=True)


@pytest.mark.parametrize("script", sorted(IMAGE.glob("*.sh")), ids=lambda path: path.name)
def test_script_has_no_known_mistakes(script: Path) -> None:
    program = shutil.which("shellcheck")
    if program is None:
        pytest.skip("shellcheck is not installed (Debian: shellcheck); the scripts were only parsed")
    result = subprocess.run([program, str(script)], capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stdout


def test_no_package_host_is_named() -> None:
    """Where packages come from is the builder's configuration; image names are all an image file needs."""
    hosts = re.compile(r"pypi\.|pythonhosted|debian\.org|ubuntu\.com|https?://")
    files = [ROOT / "Dockerfile", ROOT / ".dockerignore", *(path for path in IMAGE.iterdir() if path.is_file())]

    assert {
        path.name: found
        for path in files
        if (found := hosts.findall(path.read_text("utf-8").replace("http://127.0.0.1", "")))
    } == {}
