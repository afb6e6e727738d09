"""Renders the part of kustomize that k8s/ uses. Promises: an unknown field, directive or list is an error.

Known: resources (files and folders), components, namespace, images (newName, newTag), ConfigMaps from files of
variables, patches (strategic merge, JSON 6902).
`test_renderer_agrees_with_kustomize` compares it with the real program where that is installed.
"""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import yaml

Resource = dict[str, Any]

_FIELDS = {
    "apiVersion",
    "kind",
    "namespace",
    "resources",
    "components",
    "configMapGenerator",
    "images",
    "patches",
}
_NAMESPACED = {
    "AnalysisTemplate",
    "ConfigMap",
    "Deployment",
    "HTTPRoute",
    "HorizontalPodAutoscaler",
    "Job",
    "NetworkPolicy",
    "PersistentVolumeClaim",
    "PodDisruptionBudget",
    "PodMonitor",
    "PrometheusRule",
    "Rollout",
    "ScaledObject",
    "Service",
    "ServiceAccount",
    "ServingRuntime",
}
_CLUSTER_WIDE = {"Namespace"}
# How Kubernetes merges lists of objects: by this key, or (None) the patch's list replaces the old one.
_MERGE_KEY_BY_LIST = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "tolerations": None,
    "rules": None,
}


class KustomizeError(Exception):
    """The folder uses something this renderer does not know, or does not fit together."""


def render(folder: Path) -> list[Resource]:
    """What `kubectl apply --kustomize FOLDER` would send. Raises KustomizeError."""
    resources = _accumulated(folder, [])
    for resource in resources:
        if resource["kind"] == "ConfigMap":
            _name_by_content(resource, resources)
    return resources


def _accumulated(folder: Path, before: list[Resource]) -> list[Resource]:
    """The resources of a folder; `before` are those that a component changes."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text("utf-8"))
    unknown = set(kustomization) - _FIELDS
    if unknown:
        raise KustomizeError(f"{folder}: unknown fields {sorted(unknown)}")
    resources = before + [item for name in kustomization.get("resources", []) for item in _load(folder / name)]
    for name in kustomization.get("components", []):
        resources = _accumulated(folder / name, resources)
    for entry in kustomization.get("configMapGenerator", []):
        _generate(resources, entry, folder)
    for patch in kustomization.get("patches", []):
        resources = _patched(resources, patch, folder)
    if "namespace" in kustomization:
        for resource in resources:
            _set_namespace(resource, kustomization["namespace"])
    for image in kustomization.get("images", []):
        _set_image(resources, image)
    return resources


def identity(resource: Resource) -> tuple[str, str]:
    return resource["kind"], resource["metadata"]["name"]


def _load(path: Path) -> list[Resource]:
    if path.is_dir():
        return _accumulated(path, [])
    return [document for document in yaml.safe_load_all(path.read_text("utf-8")) if document is not None]


def _generate(resources: list[Resource], entry: dict[str, Any], folder: Path) -> None:
    """Adds a ConfigMap of the variables in files, or writes them over those of the one that is there."""
    unknown = set(entry) - {"name", "behavior", "envs", "options"}
    if unknown:
        raise KustomizeError(f"configMapGenerator: unknown fields {sorted(unknown)}")
    lines = [line for name in entry["envs"] for line in (folder / name).read_text("utf-8").splitlines()]
    data = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    same = [resource for resource in resources if identity(resource) == ("ConfigMap", entry["name"])]
    if entry.get("behavior") == "merge" and same:
        same[0]["data"].update(data)
    elif "behavior" not in entry and not same:
        metadata = {"name": entry["name"], **entry.get("options", {})}
        resources.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    else:
        raise KustomizeError(f"configMapGenerator: {entry['name']} is to be added once, then merged")


def _name_by_content(config_map: Resource, resources: list[Resource]) -> None:
    """Appends kustomize's hash to the name of a ConfigMap, and to the names by which containers read it."""
    old = config_map["metadata"]["name"]
    content = json.dumps(
        {"data": config_map["data"], "kind": "ConfigMap", "name": ""}, sort_keys=True, separators=(",", ":")
    )
    # As kustomize does: the name counts as empty, and no digit or letter that could make a word is used.
    digest = hashlib.sha256(content.encode()).hexdigest()[:10].translate(str.maketrans("013ae", "ghkmt"))
    config_map["metadata"]["name"] = f"{old}-{digest}"
    for container in _containers(resources):
        for source in container.get("envFrom", []):
            if source["configMapRef"]["name"] == old:
                source["configMapRef"]["name"] = config_map["metadata"]["name"]


def _containers(resources: list[Resource]) -> list[dict[str, Any]]:
    """The containers of everything that makes pods."""
    pods = [
        resource["spec"]["template"]["spec"]
        for resource in resources
        if "template" in resource.get("spec", {}) and resource["kind"] in ("Deployment", "Job")
    ]
    pods += [resource["spec"] for resource in resources if resource["kind"] == "ServingRuntime"]
    return [container for pod in pods for container in (*pod["containers"], *pod.get("initContainers", []))]


def _set_namespace(resource: Resource, namespace: str) -> None:
    kind, name = identity(resource)
    if kind in _NAMESPACED:
        resource["metadata"]["namespace"] = namespace
    elif kind not in _CLUSTER_WIDE:
        raise KustomizeError(f"is {kind} namespaced? say so in {__name__}")
    elif name != namespace:
        raise KustomizeError(f"namespace {name} is not the {namespace} everything else goes to")


def _set_image(resources: list[Resource], image: dict[str, str]) -> None:
    unknown = set(image) - {"name", "newName", "newTag"}
    if unknown:
        raise KustomizeError(f"images: unknown fields {sorted(unknown)}")
    for container in _containers(resources):
        name, _, tag = container["image"].partition(":")
        if name == image["name"]:
            container["image"] = f"{image.get('newName', name)}:{image.get('newTag', tag)}"


def _patched(resources: list[Resource], entry: dict[str, Any], folder: Path) -> list[Resource]:
    unknown = set(entry) - {"path", "patch", "target"}
    if unknown or ("path" in entry) == ("patch" in entry):
        raise KustomizeError(f"{folder}: a patch has one of path and patch, and maybe target: {entry}")
    text = (folder / entry["path"]).read_text("utf-8") if "path" in entry else entry["patch"]
    patch = yaml.safe_load(text)
    target = entry.get("target")
    if target is not None and set(target) != {"kind", "name"}:
        raise KustomizeError(f"{folder}: a target is a kind and a name: {target}")
    wanted = (target["kind"], target["name"]) if target else identity(patch)
    # Like kustomize: what a target names may be absent, what a patch names itself may not.
    if [identity(resource) for resource in resources].count(wanted) != 1 and not target:
        raise KustomizeError(f"patch: there is not one {wanted[0]} {wanted[1]}")
    change = _operated if isinstance(patch, list) else _merged_resource
    results = [change(resource, patch) if identity(resource) == wanted else resource for resource in resources]
    return [result for result in results if result is not None]


def _operated(resource: Resource, operations: Any) -> Resource:
    """JSON 6902 `replace` of a path that exists."""
    result = copy.deepcopy(resource)
    for operation in operations:
        if operation["op"] != "replace":
            raise KustomizeError(f"operation {operation['op']} is not known here")
        *parents, last = operation["path"].removeprefix("/").split("/")
        place: Any = result
        for part in parents:
            place = place[int(part) if isinstance(place, list) else part]
        if last not in place:
            raise KustomizeError(f"nothing to replace at {operation['path']}")
        place[last] = operation["value"]
    return result


def _merged_resource(old: Resource, patch: Any) -> Resource | None:
    if patch["apiVersion"] != old["apiVersion"]:
        raise KustomizeError(f"{identity(old)} is {old['apiVersion']}, its patch is {patch['apiVersion']}")
    if patch.get("$patch") == "delete":
        return None
    return _merged_object(old, patch)


def _merged_object(old: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    result = dict(old)
    for key, value in patch.items():
        if key.startswith("$"):
            raise KustomizeError(f"directive {key} is not known here")
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(old.get(key), dict):
            result[key] = _merged_object(old[key], value)
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            result[key] = _merged_list(key, old.get(key, []), value)
        else:
            result[key] = value
    return result


def _merged_list(key: str, old: list[Any], patch: list[Any]) -> list[Any]:
    if key not in _MERGE_KEY_BY_LIST:
        raise KustomizeError(f"how is the list {key} merged? say so in {__name__}")
    merge_key = _MERGE_KEY_BY_LIST[key]
    if merge_key is None:
        return patch
    before = {item[merge_key]: item for item in old}
    named = [_merged_object(before.pop(item[merge_key], {}), item) for item in patch]
    return [*named, *before.values()]  # kustomize puts what the patch names first
