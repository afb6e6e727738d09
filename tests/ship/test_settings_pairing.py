"""Every setting is decided in Kubernetes: in the ConfigMap, or left at its default for a reason written here."""

from __future__ import annotations

from pathlib import Path

import pytest

from saccade.service.settings import PREFIX, Settings, resolved, settings_from
from tests.ship.kustomize import render

K8S = Path(__file__).resolve().parents[2] / "k8s"
LEFT_AT_DEFAULT = {
    "backend": "auto is right on CPUs and on GPUs",
    "engines_dir": "below the repository, where every pod finds what one has built",
    "engines_key_file": "needs a Secret of yours; k8s/README.md shows how",
    "build_engines": "a plan that is missing is built once, for all pods",
    "serve_while_building": "answers soon, and faster later",
    "build_silence_ms": "longer than any kernel takes to time",
    "placement": "a pod of k8s/overlays/gpu has one GPU; k8s/README.md says how to give it several",
    "device_memory_reserve_mb": "what is left to the device is no question of the cluster",
    "device_memory_limit_mb": "a pod has its GPU for itself",
    "inline_decode_pixels": "by cores; fewer HTTP processes than cores decode in threads",
    "device_threads": "deployment.yaml takes it from the CPU limit",
    "cuda_graphs": "on where a model can be captured",
    "batches_in_flight": "one copies while one runs; more only adds waiting",
    "execution_contexts": "to be decided by measuring on the GPU at hand",
    "allow_spinning": "helps some networks and hurts others; to be decided by measuring",
    "max_slot_bytes": "only address space; pages count once touched",
    "max_batch_size": "the manifest says what was measured",
    "max_queue_delay_ms": "late batching needs no delay",
    "device_shares": "names your models; k8s/README.md says how to give one more",
    "max_estimated_wait_ms": "deadlines bound the wait, and ten runs where none is named",
    "max_concurrent_per_key": "belongs to keys, which need a Secret of yours",
    "body_timeout_ms": "a property of clients, not of the cluster",
    "max_images_per_request": "a property of clients, not of the cluster",
    "max_tiles": "a property of pictures, not of the cluster",
    "grpc_port": "needs the grpc extra in your image, and a port in your Service",
    "admin_port": "needs a key of scope admin, and a port that no Service shows",
    "cors_origins": "names your web pages",
    "root_path": "belongs to an ingress of yours",
    "forwarded_allow_ips": "belongs to an ingress of yours",
    "image_formats": "which pictures you take is your choice",
    "trust_sample": "one request in a hundred is a share for many requests",
    "quality": "which pictures you take is your choice",
    "ladder": "whether cheaper answers are welcome is the user's choice",
    "objective_ms": "belongs to a ladder",
    "load_models": "a pod serves all that its repository has",
    "pinned_models": "belongs to loading on demand",
    "max_loaded_models": "memory is what bounds",
    "serving_dir": "serving.json beside the versions needs no ConfigMap; k8s/README.md shows one",
    "repository_cache_mb": "belongs to a repository in an object store; k8s/components/object-store sets it",
    "serve_versions": "names your models; k8s/README.md shows it in the pod spec",
    "hang_timeout_ms": "fits the start-up probe; a test compares them",
    "jpeg_decoder": "auto measures on the node itself",
    "api_keys_file": "needs a Secret of yours; k8s/README.md shows how",
    "log_level": "signals change it in a pod that runs; k8s/README.md says how",
    "open_without_key": "belongs to keys, which need a Secret of yours",
    "shadow_pictures": "whether users' pictures may be kept is your choice",
    "require_signature": "needs public keys of yours; k8s/README.md shows how",
    "allow_unjudged": "a cluster serves what was judged; who wants otherwise says so",
    "trusted_keys": "needs public keys of yours; k8s/README.md shows how",
}


def config_map(folder: str) -> dict[str, str]:
    (resource,) = [item for item in render(K8S / folder) if item["kind"] == "ConfigMap"]
    data: dict[str, str] = resource["data"]
    return data


@pytest.mark.parametrize("folder", ["base", "overlays/dev", "overlays/production", "overlays/gpu"])
def test_config_map_starts_a_server(folder: str) -> None:
    """Raises on an unknown key and on a bad value."""
    settings = settings_from(config_map(folder))

    assert resolved(settings, cores=64).api_processes == settings.api_processes


def test_every_setting_is_decided() -> None:
    in_config_map = {name.removeprefix(PREFIX).lower() for name in config_map("base")}

    assert set(Settings.model_fields) - in_config_map == set(LEFT_AT_DEFAULT)


@pytest.mark.parametrize(("folder", "cores"), [("base", 4), ("overlays/dev", 1), ("overlays/gpu", 4)])
def test_processes_and_threads_are_what_these_cores_would_choose(folder: str, cores: int) -> None:
    """Cores are the CPU limit, which the server cannot see."""
    settings = settings_from(config_map(folder))
    chosen = resolved(settings.model_copy(update={"api_processes": 0, "decode_threads": 0}), cores)

    assert (settings.api_processes, settings.decode_threads) == (chosen.api_processes, chosen.decode_threads)
