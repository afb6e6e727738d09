"""What goes to Kubernetes: every rendering is valid, confined, probed on endpoints that exist, and drains in time."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from saccade.service.api.app import build_api
from saccade.service.api.decode_room import SMALL_BYTES
from saccade.service.api.image_threads import decode_room_bytes
from saccade.service.settings import Settings, resolved, settings_from
from tests.ship.custom_resources import is_custom, unknown_fields
from tests.ship.kustomize import KustomizeError, Resource, identity, render

K8S = Path(__file__).resolve().parents[2] / "k8s"
FOLDERS = ("base", "overlays/dev", "overlays/staging", "overlays/production", "overlays/gpu")
KUBERNETES_VERSIONS = ("1.33", kubernetes_validate.latest_version())  # the oldest we say works, and the newest


@pytest.fixture(scope="module", params=FOLDERS)
def folder(request: pytest.FixtureRequest) -> Path:
    return K8S / str(request.param)


@pytest.fixture(scope="module")
def resources(folder: Path) -> list[Resource]:
    return render(folder)


@pytest.fixture(scope="module")
def deployment(resources: list[Resource]) -> Resource:
    return only(resources, "Deployment")


@pytest.fixture(scope="module")
def pod(deployment: Resource) -> dict[str, Any]:
    spec: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return spec


@pytest.fixture(scope="module")
def container(pod: dict[str, Any]) -> dict[str, Any]:
    (container,) = pod["containers"]
    assert isinstance(container, dict)
    return container


@pytest.fixture(scope="module")
def settings(resources: list[Resource]) -> Settings:
    return settings_from(only(resources, "ConfigMap")["data"])


def only(resources: list[Resource], kind: str) -> Resource:
    (resource,) = [resource for resource in resources if resource["kind"] == kind]
    return resource


def rendered_by_kustomize(folder: Path) -> dict[tuple[str, str], Resource]:
    """Skips the test where the real program is not installed."""
    command = next(
        ([name, *rest] for name, *rest in (("kustomize", "build"), ("kubectl", "kustomize")) if shutil.which(name)),
        None,
    )
    if command is None:
        pytest.skip("neither kustomize nor kubectl is installed; the renderings were only made by our own renderer")
    result = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=True, timeout=60)
    return {identity(resource): resource for resource in yaml.safe_load_all(result.stdout)}


def mib(quantity: str) -> int:
    return int(quantity.removesuffix("Gi")) * 1024 if quantity.endswith("Gi") else int(quantity.removesuffix("Mi"))


# Renderings


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
def test_every_rendered_resource_is_valid(resources: list[Resource], version: str) -> None:
    for resource in resources:
        if is_custom(resource):
            assert unknown_fields(resource) == []
        else:
            kubernetes_validate.validate(resource, version, strict=True)


def test_no_resource_is_rendered_twice(resources: list[Resource]) -> None:
    names = [identity(resource) for resource in resources]

    assert len(names) == len(set(names))


def test_every_file_is_part_of_a_rendering() -> None:
    named: set[Path] = set()
    for kustomization in K8S.rglob("kustomization.yaml"):
        content = yaml.safe_load(kustomization.read_text("utf-8"))
        patches = [entry["path"] for entry in content.get("patches", []) if "path" in entry]
        variables = [name for entry in content.get("configMapGenerator", []) for name in entry["envs"]]
        names = [*content.get("resources", []), *patches, *variables]
        named |= {(kustomization.parent / name).resolve() for name in names}
    files = {path for pattern in ("*.yaml", "*.env") for path in K8S.rglob(pattern)}

    assert {path for path in files if path.name != "kustomization.yaml"} - named == set()


def test_renderer_agrees_with_kustomize(folder: Path, resources: list[Resource]) -> None:
    assert {identity(resource): resource for resource in resources} == rendered_by_kustomize(folder)


@pytest.mark.parametrize(
    "addition",
    [
        {"configurations": ["x.yaml"]},
        {"patches": [{"patch": "kind: Service\napiVersion: v1\nmetadata: {name: absent}"}]},
        {
            "patches": [
                {"patch": "kind: Service\napiVersion: v1\nmetadata: {name: saccade}\nspec: {ports: [{port: 1}]}"}
            ]
        },
        {
            "patches": [
                {
                    "patch": "[{op: replace, path: /spec/absent, value: 1}]",
                    "target": {"kind": "Service", "name": "saccade"},
                }
            ]
        },
        {"images": [{"name": "saccade", "digest": "sha256:0"}]},
        {"configMapGenerator": [{"name": "saccade", "literals": ["A=1"]}]},
        {"configMapGenerator": [{"name": "absent", "behavior": "merge", "envs": []}]},
    ],
    ids=[
        "unknown field",
        "no such resource",
        "unknown list",
        "nothing to replace",
        "unknown image field",
        "unknown generator field",
        "nothing to merge with",
    ],
)
def test_renderer_refuses_what_it_does_not_know(tmp_path: Path, addition: dict[str, Any]) -> None:
    shutil.copytree(K8S / "base", tmp_path / "base")
    overlay = tmp_path / "overlay"
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump({"resources": ["../base"], **addition}), "utf-8")

    with pytest.raises(KustomizeError):
        render(overlay)


# The pod


def test_pod_is_confined(pod: dict[str, Any], container: dict[str, Any]) -> None:
    security = container["securityContext"]

    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert security["readOnlyRootFilesystem"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert pod["automountServiceAccountToken"] is False


def test_service_links_are_off(pod: dict[str, Any]) -> None:
    """A Service named saccade would otherwise set SACCADE_PORT=tcp://…, and the server would refuse to start."""
    assert pod["enableServiceLinks"] is False


def test_probes_ask_endpoints_that_exist(container: dict[str, Any]) -> None:
    paths = set(build_api(resolved(Settings(), cores=1), lambda generation: None).app.openapi()["paths"])
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    asked = {name: container[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}

    assert {name: get["path"] for name, get in asked.items()} == {
        "startupProbe": "/health/startup",
        "livenessProbe": "/health/live",
        "readinessProbe": "/health/ready",
    }
    assert {get["path"] for get in asked.values()} | {"/metrics"} <= paths
    assert {get["port"] for get in asked.values()} <= set(ports)


def test_ports_are_the_one_the_server_listens_on(
    resources: list[Resource], deployment: Resource, container: dict[str, Any], settings: Settings
) -> None:
    annotations = deployment["spec"]["template"]["metadata"]["annotations"]

    assert [port["containerPort"] for port in container["ports"]] == [settings.port]
    assert annotations["prometheus.io/port"] == str(settings.port)
    assert only(resources, "Service")["spec"]["ports"][0]["targetPort"] == container["ports"][0]["name"]
    assert settings.host == "0.0.0.0"


def test_selectors_find_the_pods(resources: list[Resource], deployment: Resource, pod: dict[str, Any]) -> None:
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    selectors = [deployment["spec"]["selector"]["matchLabels"], only(resources, "Service")["spec"]["selector"]]
    selectors += [spread["labelSelector"]["matchLabels"] for spread in pod["topologySpreadConstraints"]]
    for resource in resources:
        if resource["kind"] == "PodDisruptionBudget":
            selectors.append(resource["spec"]["selector"]["matchLabels"])
        if resource["kind"] == "NetworkPolicy":
            selectors.append(resource["spec"]["podSelector"]["matchLabels"])
        if resource["kind"] == "HorizontalPodAutoscaler":
            assert resource["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]

    assert all(selector.items() <= labels for selector in selectors)


def test_references_lead_to_what_is_rendered(
    resources: list[Resource], pod: dict[str, Any], container: dict[str, Any]
) -> None:
    names = {identity(resource) for resource in resources}
    claims = [
        volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"] if "persistentVolumeClaim" in volume
    ]

    assert ("ServiceAccount", pod["serviceAccountName"]) in names
    assert all(("ConfigMap", source["configMapRef"]["name"]) in names for source in container["envFrom"])
    assert all(("PersistentVolumeClaim", claim) in names for claim in claims)
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_repository_is_mounted_read_only_where_the_server_looks(container: dict[str, Any], settings: Settings) -> None:
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}

    assert mounts[str(settings.repository)]["readOnly"] is True


def test_shared_memory_is_in_memory_and_bounded(pod: dict[str, Any], container: dict[str, Any]) -> None:
    (name,) = [mount["name"] for mount in container["volumeMounts"] if mount["mountPath"] == "/dev/shm"]
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == name]

    assert volume["emptyDir"] == {"medium": "Memory", "sizeLimit": "64Mi"}


# Time and memory


def test_grace_period_leaves_time_to_drain_and_finish(pod: dict[str, Any], settings: Settings) -> None:
    drain_s = (settings.drain_delay_ms + settings.shutdown_timeout_ms) / 1000

    assert pod["terminationGracePeriodSeconds"] >= drain_s + 5


@pytest.mark.parametrize("name", ["base", "overlays/staging", "overlays/production", "overlays/gpu"])
def test_replicas_stay_in_the_endpoints_until_all_proxies_know(name: str) -> None:
    assert settings_from(only(render(K8S / name), "ConfigMap")["data"]).drain_delay_ms >= 5000


def test_rollout_never_takes_a_pod_before_its_successor_is_ready(deployment: Resource) -> None:
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_hang_is_the_supervisors_before_it_is_the_kubelets(container: dict[str, Any], settings: Settings) -> None:
    """Loading takes as long as the start-up probe allows; a worker that hangs while loading must be replaced within."""
    probe = container["startupProbe"]

    assert probe["periodSeconds"] * probe["failureThreshold"] > 2 * settings.hang_timeout_ms / 1000


def test_device_threads_follow_the_cpu_limit(container: dict[str, Any]) -> None:
    (variable,) = [entry for entry in container["env"] if entry["name"] == "SACCADE_DEVICE_THREADS"]

    assert variable["valueFrom"]["resourceFieldRef"] == {"containerName": container["name"], "resource": "limits.cpu"}
    assert container["resources"]["limits"]["cpu"].isdecimal()


def test_memory_limit_holds_the_worst_the_settings_allow(container: dict[str, Any], settings: Settings) -> None:
    """The sum of k8s/README.md, in MiB."""
    bytes_per_pixel = 27 if settings.more_formats else 5  # of the others fewer pixels are taken where one has more
    most = max(decode_room_bytes(settings.decode_threads), settings.max_pixels * bytes_per_pixel)
    decoding = (most + settings.decode_threads * SMALL_BYTES) / 2**20 + 110  # and the processes for slow pictures
    slots = settings.slots * 1  # an image and its answers; the reference models touch less
    api_process = settings.max_buffered_bytes / 2**20 + decoding + slots
    interpreters, models, shared_memory = 165 + 110 * settings.api_processes, 256, 64
    cuda = 2048 if settings.device != "cpu" else 0
    needed = settings.api_processes * api_process + interpreters + models + shared_memory + cuda

    assert needed <= mib(container["resources"]["limits"]["memory"])


# Overlays


def test_dev_overlay_is_one_pod_that_may_always_be_evicted() -> None:
    resources = render(K8S / "overlays/dev")
    kinds = {resource["kind"] for resource in resources}

    assert only(resources, "Deployment")["spec"]["replicas"] == 1
    assert kinds.isdisjoint({"HorizontalPodAutoscaler", "PodDisruptionBudget"})
