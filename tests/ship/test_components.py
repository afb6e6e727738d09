"""What is added to the base: settings that undo with their pods, GPUs, autoscaling by wait, routes, releases."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from saccade.service.repository.object_store.address import url_of
from saccade.service.settings import settings_from
from tests.ship.custom_resources import is_custom, unknown_fields
from tests.ship.kustomize import Resource, identity, render
from tests.ship.test_manifests import K8S, KUBERNETES_VERSIONS, only, rendered_by_kustomize
from tests.support.prometheus_rule import RULE, prometheus_rule

ALL_TOGETHER = ("keda", "gateway", "argo-rollouts")


def overlay(folder: Path, **fields: Any) -> Path:
    """A kustomization in a folder of its own; paths in it start at k8s/."""
    folder.mkdir(parents=True)
    for field in ("resources", "components"):
        fields[field] = [os.path.relpath(K8S / name, folder.resolve()) for name in fields.get(field, [])]
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(fields), "utf-8")
    return folder


@pytest.fixture
def everything(tmp_path: Path) -> Path:
    return overlay(
        tmp_path / "all",
        namespace="saccade",
        resources=["overlays/production"],
        components=[f"components/{name}" for name in ALL_TOGETHER],
    )


def container_of(resource: Resource) -> dict[str, Any]:
    (container,) = resource["spec"]["template"]["spec"]["containers"]
    assert isinstance(container, dict)
    return container


def config_map_name(resources: list[Resource]) -> str:
    return str(container_of(only(resources, "Deployment"))["envFrom"][0]["configMapRef"]["name"])


# Settings


def test_changed_settings_have_a_name_of_their_own_so_that_undo_brings_the_old_ones_back(tmp_path: Path) -> None:
    (tmp_path / "more.env").write_text("SACCADE_SLOTS=32\n", "utf-8")
    before = render(overlay(tmp_path / "before", resources=["base"]))
    merge = {"name": "saccade", "behavior": "merge", "envs": ["../more.env"]}
    after = render(overlay(tmp_path / "after", resources=["base"], configMapGenerator=[merge]))

    assert config_map_name(before) != config_map_name(after)
    assert config_map_name(after) == only(after, "ConfigMap")["metadata"]["name"]


# Components


def test_all_components_go_together(everything: Path) -> None:
    resources = render(everything)

    assert [found for item in resources if is_custom(item) for found in unknown_fields(item)] == []
    assert {identity(resource): resource for resource in resources} == rendered_by_kustomize(everything)


def test_gpu_overlay_asks_for_a_gpu_uses_it_and_does_not_scale_by_cpu() -> None:
    resources = render(K8S / "overlays/gpu")
    container = container_of(only(resources, "Deployment"))

    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["image"] == "saccade:serve-gpu"
    assert {"mountPath": "/tmp", "name": "temporary"} in container["volumeMounts"]
    assert settings_from(only(resources, "ConfigMap")["data"]).device == "cuda:0"
    assert "HorizontalPodAutoscaler" not in {resource["kind"] for resource in resources}


def test_wait_that_adds_pods_is_a_small_part_of_the_objective(everything: Path) -> None:
    resources = render(everything)
    (trigger,) = only(resources, "ScaledObject")["spec"]["triggers"]
    objective_s = settings_from(only(resources, "ConfigMap")["data"]).objective_ms / 1000

    assert float(trigger["metadata"]["threshold"]) == pytest.approx(objective_s / 5)
    assert "saccade_queue_wait_estimate_seconds" in trigger["metadata"]["query"]


def test_one_autoscaler_owns_the_number_of_pods(everything: Path) -> None:
    resources = render(everything)

    assert "HorizontalPodAutoscaler" not in {resource["kind"] for resource in resources}
    assert "replicas" not in only(resources, "Deployment")["spec"]
    assert only(resources, "ScaledObject")["spec"]["scaleTargetRef"]["kind"] == "Rollout"


def test_route_waits_longer_than_the_server_and_shows_predictions_alone(everything: Path) -> None:
    resources = render(everything)
    (rule,) = only(resources, "HTTPRoute")["spec"]["rules"]
    settings = settings_from(only(resources, "ConfigMap")["data"])

    assert int(rule["timeouts"]["request"].removesuffix("s")) * 1000 > (
        settings.body_timeout_ms + settings.max_deadline_ms
    )
    assert [match["path"]["value"] for match in rule["matches"]] == ["/v1", "/v2"]


def test_release_divides_a_route_between_services_that_exist(everything: Path) -> None:
    resources = render(everything)
    canary = only(resources, "Rollout")["spec"]["strategy"]["canary"]
    (rule,) = only(resources, "HTTPRoute")["spec"]["rules"]
    names = {identity(resource) for resource in resources}
    templates = {
        entry["templateName"] for step in canary["steps"] for entry in step.get("analysis", {}).get("templates", [])
    }

    assert [reference["name"] for reference in rule["backendRefs"]] == [
        canary["stableService"],
        canary["canaryService"],
    ]
    assert {("Service", canary["stableService"]), ("Service", canary["canaryService"])} <= names
    assert {("AnalysisTemplate", name) for name in templates} <= names
    assert set(canary["canaryMetadata"]["labels"]) <= set(only(resources, "PodMonitor")["spec"]["podTargetLabels"])


def test_pin_of_a_version_reaches_the_pods_of_a_release(everything: Path, tmp_path: Path) -> None:
    pin = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "saccade"},
        "spec": {
            "template": {
                "spec": {
                    "containers": [
                        {"name": "saccade", "env": [{"name": "SACCADE_SERVE_VERSIONS", "value": "digits-detector=3"}]}
                    ]
                }
            }
        },
    }
    kustomization = yaml.safe_load((everything / "kustomization.yaml").read_text("utf-8"))
    kustomization["patches"] = [{"patch": yaml.safe_dump(pin)}]
    (everything / "kustomization.yaml").write_text(yaml.safe_dump(kustomization), "utf-8")
    resources = render(everything)
    template = only(resources, "Rollout")["spec"]["workloadRef"]

    assert (template["kind"], template["name"]) == identity(only(resources, "Deployment"))
    assert container_of(only(resources, "Deployment"))["env"][0]["value"] == "digits-detector=3"


def test_prometheus_rule_is_made_of_the_alerts() -> None:
    assert RULE.read_text("utf-8") == prometheus_rule(), "run `make docs`"


def test_alerts_select_the_job_that_the_pod_monitor_makes() -> None:
    resources = render(K8S / "overlays/production")
    label = only(resources, "PodMonitor")["spec"]["jobLabel"]
    labels = only(resources, "Deployment")["spec"]["template"]["metadata"]["labels"]

    assert f'job="{labels[label]}"' in prometheus_rule()


def test_repository_in_an_object_store_needs_no_claim_and_its_copy_fits(tmp_path: Path) -> None:
    folder = overlay(
        tmp_path / "stored",
        namespace="saccade",
        resources=["overlays/production"],
        components=["components/object-store"],
    )
    resources = render(folder)
    deployment = only(resources, "Deployment")
    settings = settings_from(only(resources, "ConfigMap")["data"])
    (volume,) = [each for each in deployment["spec"]["template"]["spec"]["volumes"] if each["name"] == "repository"]
    (mount,) = [each for each in container_of(deployment)["volumeMounts"] if each["name"] == "repository"]

    for resource in resources:
        if not is_custom(resource):
            for kubernetes in KUBERNETES_VERSIONS:
                kubernetes_validate.validate(resource, kubernetes, strict=True)
    assert "PersistentVolumeClaim" not in {resource["kind"] for resource in resources}
    assert url_of(settings.repository) == "s3://models/vision"
    assert settings.repository_cache_mb < int(volume["emptyDir"]["sizeLimit"].removesuffix("Gi")) * 1024
    assert (mount["mountPath"], mount["readOnly"]) == (only(resources, "ConfigMap")["data"]["XDG_CACHE_HOME"], False)
    assert [port["port"] for rule in only(resources, "NetworkPolicy")["spec"]["egress"] for port in rule["ports"]] == [
        53,
        53,
        443,
    ]


def test_object_store_goes_with_every_other_component(tmp_path: Path) -> None:
    folder = overlay(
        tmp_path / "gpu",
        namespace="saccade",
        resources=["overlays/gpu"],
        components=[f"components/{name}" for name in ("object-store", "gateway", "argo-rollouts")],
    )

    assert {identity(resource): resource for resource in render(folder)} == rendered_by_kustomize(folder)


# KServe


def test_serving_runtime_is_a_pod_that_may_run_and_whose_settings_start_a_server() -> None:
    resource = only(render(K8S / "kserve"), "ServingRuntime")
    spec = resource["spec"]
    (container,) = spec["containers"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "of-the-runtime"},
        "spec": {"containers": spec["containers"], "volumes": spec["volumes"]},
    }
    settings = settings_from({item["name"]: item["value"] for item in container["env"] if "value" in item})

    assert unknown_fields(resource) == []
    for version in KUBERNETES_VERSIONS:
        kubernetes_validate.validate(pod, version, strict=True)
    assert container["ports"][0]["containerPort"] == settings.port
    assert str(settings.repository) == "/mnt/models"
    assert settings.drain_delay_ms + settings.shutdown_timeout_ms < 30_000


# The publisher


@pytest.fixture
def job() -> Resource:
    return only(render(K8S / "publish"), "Job")


def test_publisher_is_valid_confined_and_writes_to_the_servers_claim(job: Resource) -> None:
    pod = job["spec"]["template"]["spec"]
    container = container_of(job)
    claims = [
        volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"] if "persistentVolumeClaim" in volume
    ]

    for version in KUBERNETES_VERSIONS:
        kubernetes_validate.validate(job, version, strict=True)
    assert claims == [only(render(K8S / "base"), "PersistentVolumeClaim")["metadata"]["name"]]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsUser"] == 10001


def test_image_of_the_publisher_is_set_where_those_of_servers_are(tmp_path: Path) -> None:
    image = {"name": "saccade", "newName": "registry.example.org/saccade", "newTag": "0.1.0-export"}
    folder = overlay(tmp_path / "mine", resources=["publish"], images=[image])

    assert container_of(only(render(folder), "Job"))["image"] == "registry.example.org/saccade:0.1.0-export"
    if shutil.which("kubectl") or shutil.which("kustomize"):
        (theirs,) = rendered_by_kustomize(folder).values()
        assert theirs == only(render(folder), "Job")


def test_publisher_runs_recipes_that_exist(job: Resource) -> None:
    recipes = [argument for argument in container_of(job)["args"] if argument.endswith(".yaml")]

    assert recipes
    assert [recipe for recipe in recipes if not (K8S.parent / recipe).is_file()] == []
