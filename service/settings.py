"""Defines all settings: read once, frozen and complete. An unknown key or a bad value stops the start, by name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from saccade.models.contract.manifest import MAX_VERSION
from saccade.service.device_names import devices_from
from saccade.service.errors import SettingsError
from saccade.service.vision.more_formats import PILLOW_NAMES

PREFIX = "SACCADE_"
# Variables of the exporter and the client, which a server ignores because one shell may publish, serve and ask.
NOT_SETTINGS = frozenset({"SACCADE_SIGN_KEY_FILE", "SACCADE_SIGN_KEY_PASSWORD", "SACCADE_CLIENT_KEY"})
MIB = 1024 * 1024
_TINY_PIXELS = 40_000  # decoding a JPEG of 200x200 takes less time than handing it to a thread
_SMALL_PIXELS = 250_000  # a JPEG of 500x375 takes 0.7 ms; an event loop may be busy for a few ms
_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


class Settings(BaseModel):
    """All settings of a server. Durations are in milliseconds, as in headers; the code converts them to seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    repository: Path = Field(
        Path("repository"),
        description="model repository to serve: a directory, or s3://, gs://, az:// or https:// with a prefix",
    )
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="HTTP port; 0 takes a free one")
    backend: Literal["auto", "onnxruntime", "tensorrt", "fake"] = Field(
        "auto",
        description="runtime of the device workers; auto: TensorRT where a GPU and it are there, on "
        "processors the one that a variant was measured with",
    )
    device: str = Field("cpu", description="devices, one worker each: cpu, cuda:0,cuda:1, GPU-<uuid>, MIG-<uuid>")
    placement: Literal["replicate", "spread"] = Field(
        "replicate", description="several devices: every version on each, or on the one with most room"
    )
    device_memory_reserve_mb: int = Field(512, ge=0, description="MiB of a device's memory that models must leave")
    device_memory_limit_mb: int = Field(0, ge=0, description="MiB of a device's memory for models; 0: what is free")
    device_threads: int = Field(0, ge=0, le=256, description="intra-op threads of each worker; 0: cores over devices")
    cuda_graphs: bool = Field(True, description="GPU: one CUDA graph per batch size where the model can be captured")
    batches_in_flight: int = Field(2, ge=1, le=4, description="GPU: batches of a device that overlap with copying")
    execution_contexts: int = Field(1, ge=1, le=2, description="GPU: TensorRT batches that may run at the same time")
    allow_spinning: bool = Field(False, description="ONNX Runtime threads busy-wait between batches")
    tuning: Literal["measure", "off"] = Field(
        "measure",
        description="CPU: short measurements, kept for the next start, choose workers, threads, spinning and HTTP "
        "processes where no setting does, and compare the variants of a version",
    )
    api_processes: int = Field(
        0, ge=0, le=64, description="HTTP processes; 0: measured, else one per four cores, two at least"
    )
    decode_threads: int = Field(0, ge=0, le=64, description="image threads per HTTP process; 0: by cores")
    jpeg_decoder: Literal["auto", "cpu", "gpu"] = Field(
        "auto", description="where JPEGs are decoded; auto: on the GPU where that is measured faster"
    )
    inline_decode_pixels: int | None = Field(
        None, ge=0, le=1_000_000, description="JPEGs up to this size need no image thread; none: by cores, 0: never"
    )
    slots: int = Field(64, ge=1, le=4096, description="requests in flight per HTTP process and device")
    max_slot_bytes: int = Field(32 * MIB, ge=4096, description="largest input plus outputs of one image")
    max_batch_size: int = Field(0, ge=0, description="upper bound on batches; 0: what the manifest allows")
    max_queue_delay_ms: float = Field(0.0, ge=0.0, le=1000.0, description="longest wait to fill a batch")
    device_shares: str = Field(
        "", description="device time of models that share a device, as detector=2,segmenter=0.5; others have 1"
    )
    max_estimated_wait_ms: float | None = Field(
        None,
        ge=0.0,
        description="a request that would wait longer for the device is refused with 429; 0: only its deadline counts; "
        "none: the same, and a request without a deadline has SACCADE_OBJECTIVE_MS, or ten runs of its model",
    )
    max_concurrent_per_key: int = Field(0, ge=0, description="requests of one API key at once per HTTP process; 0: any")
    default_deadline_ms: float = Field(10_000.0, gt=0.0, description="deadline of requests that name none")
    max_deadline_ms: float = Field(60_000.0, gt=0.0, description="longest deadline a request may ask for")
    max_body_bytes: int = Field(32 * MIB, ge=1, description="largest request body")
    max_buffered_bytes: int = Field(256 * MIB, ge=1, description="request bodies held at once per HTTP process")
    body_timeout_ms: float = Field(
        20_000.0,
        gt=0.0,
        description="longest time a head, and then a body, may take; 64 KiB of an answer must be taken in it",
    )
    max_images_per_request: int = Field(16, ge=1, description="images in one request")
    max_pixels: int = Field(50_000_000, ge=1, description="largest decoded image, an 8K frame is 33 M; fewer of PNGs")
    max_tiles: int = Field(1024, ge=1, description="tiles of one picture, for networks whose answer is a picture")
    image_formats: str = Field(
        "", description="formats beyond JPEG, PNG, WebP and BMP, as gif,tiff: also avif, jpeg2000, heif, jxl"
    )
    quality: Literal["asked", "flag", "refuse"] = Field(
        "asked",
        description="sharpness, exposure and size of pictures: in answers that ask, in all, or 422 for the poor",
    )
    trust_sample: float = Field(
        0.01, ge=0.0, le=1.0, description="share of requests, asking or not, that saccade_unfamiliar_ratio counts"
    )
    variant: str = Field(
        "auto",
        description="variant to serve; auto: the most exact that passed, unless another is faster beyond doubt",
    )
    ladder: str = Field(
        "off", description="variants loaded at once, cheaper ones for times of overload: auto, or names, best first"
    )
    objective_ms: float = Field(
        0.0,
        description="time in which a request without a deadline must be answered, or is refused, where its model's "
        "document names none; beyond half of it a ladder's cheaper variants answer; 0: ten runs of the model, and for "
        "a ladder the request's deadline_ms",
    )
    load_models: Literal["all", "on_demand"] = Field(
        "all", description="all: every model is loaded; on_demand: its first request loads it, the least used leaves"
    )
    pinned_models: str = Field("", description="models that are always loaded, separated by commas")
    max_loaded_models: int = Field(0, ge=0, description="on demand: versions loaded at once; 0: by memory alone")
    engines_dir: Path | None = Field(None, description="where TensorRT plans lie; none: .engines in the repository")
    engines_key_file: Path | None = Field(
        None, description="secret that vouches for plans others can write; none: open"
    )
    build_engines: bool = Field(True, description="build TensorRT plans that are missing for a GPU")
    serve_while_building: bool = Field(True, description="ONNX Runtime serves a version until its plan is there")
    build_silence_ms: float = Field(900_000.0, ge=1000.0, description="a plan build silent for so long is killed")
    serve_versions: str = Field(
        "", description="models of which one version is served, as detector=3,segmenter=7; without it: no start"
    )
    serving_dir: Path | None = Field(
        None, description="where <model>.json says which version each label names; none: serving.json beside versions"
    )
    shadow_pictures: bool = Field(
        False, description="keep the pictures on which a shadow disagrees most, beside its answers in .shadow"
    )
    versions_per_model: int = Field(2, ge=1, le=32, description="newest versions of a model kept loaded")
    repository_poll_ms: float = Field(1000.0, ge=50.0, description="how often the repository is looked at")
    repository_cache_mb: int = Field(
        20_480, ge=1, description="MiB kept here of a repository in an object store; the oldest unserved versions leave"
    )
    hang_timeout_ms: float = Field(
        30_000.0, gt=0.0, description="a worker or HTTP process silent for so long is replaced"
    )
    drain_delay_ms: float = Field(0.0, ge=0.0, description="SIGTERM: not ready, still serving, for so long")
    shutdown_timeout_ms: float = Field(25_000.0, gt=0.0, description="SIGTERM: in-flight requests get so long")
    api_keys_file: Path | None = Field(
        None, description="file of bearer keys, one per line, watched; lines as `saccade keys new` prints; none: open"
    )
    open_without_key: str = Field(
        "", description="what needs no key where keys are set, beside health: metrics, docs (all pages), or both"
    )
    require_signature: bool = Field(False, description="refuse versions that no trusted key has signed")
    allow_unjudged: bool = Field(False, description="serve versions whose answers nobody held against labels")
    trusted_keys: tuple[Path, ...] = Field(
        (), description="public keys whose signatures count: PEM files or directories of them, separated by ':'"
    )
    grpc_port: int = Field(0, ge=0, le=65535, description="gRPC port of the Open Inference Protocol; 0: none")
    admin_port: int = Field(
        0,
        ge=0,
        le=65535,
        description="port of /admin/v1, which changes what is served, for keys of scope admin; 0: none",
    )
    cors_origins: str = Field("", description="origins of web pages that may ask, separated by commas; *: any")
    root_path: str = Field("", description="prefix under which a proxy shows this server, such as /vision")
    forwarded_allow_ips: str = Field(
        "", description="proxies whose X-Forwarded-For and -Proto count: addresses and networks, or *; none: nobody's"
    )
    log_format: Literal["console", "json"] = Field("console", description="log lines for people or machines")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info",
        description="debug: a line for each answered request, too (the access log); SIGUSR1 switches to it while the "
        "server runs, SIGUSR2 back",
    )

    @field_validator("device")
    @classmethod
    def _name_devices(cls, value: str) -> str:
        return ",".join(devices_from(value))

    @field_validator("ladder", "pinned_models")
    @classmethod
    def _name_each_once(cls, value: str) -> str:
        names = _names_in(value)
        if not all(names) or len(set(names)) != len(names):
            raise ValueError(f"{value!r} must be names separated by commas, each once")
        if len(names) > 1 and {"auto", "off"} & set(names):
            raise ValueError(f"{value!r}: auto and off stand alone")
        return ",".join(names)

    @property
    def ladder_names(self) -> tuple[str, ...] | None:
        """The variants of the ladder, most accurate first; None where measurements choose, empty without a ladder."""
        return {"auto": None, "off": (), "": ()}.get(self.ladder, _names_in(self.ladder))

    @property
    def has_ladder(self) -> bool:
        return self.ladder_names != ()

    @property
    def pinned(self) -> frozenset[str]:
        return frozenset(_names_in(self.pinned_models))

    @field_validator("image_formats")
    @classmethod
    def _know_formats(cls, value: str) -> str:
        unknown = [name for name in _names_in(value) if name not in PILLOW_NAMES]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is none of {', '.join(PILLOW_NAMES)}")
        return value

    @field_validator("root_path")
    @classmethod
    def _begin_with_slash(cls, value: str) -> str:
        if value and (not value.startswith("/") or value.endswith("/")):
            raise ValueError(f"{value!r} must begin with a slash and not end with one, as /vision")
        return value

    @field_validator("open_without_key")
    @classmethod
    def _know_paths(cls, value: str) -> str:
        unknown = sorted(set(_names_in(value)) - {"metrics", "docs"})
        if unknown:
            raise ValueError(f"{unknown[0]!r} is neither metrics nor docs")
        return value

    @property
    def open_paths(self) -> frozenset[str]:
        return frozenset(_names_in(self.open_without_key))

    @property
    def cors(self) -> tuple[str, ...]:
        return _names_in(self.cors_origins)

    @property
    def more_formats(self) -> frozenset[str]:
        return frozenset(_names_in(self.image_formats))

    @field_validator("device_shares")
    @classmethod
    def _read_shares(cls, value: str) -> str:
        shares_from(value)
        return value

    @property
    def shares(self) -> dict[str, float]:
        """The shares of device time by model, for models with a share of their own; all others have 1."""
        return shares_from(self.device_shares)

    @field_validator("serve_versions")
    @classmethod
    def _read_pins(cls, value: str) -> str:
        pins_from(value)
        return value

    @property
    def pins(self) -> dict[str, int]:
        """The version of each model of which only one is served."""
        return pins_from(self.serve_versions)

    @property
    def engines_root(self) -> Path:
        return self.engines_dir or self.repository / ".engines"

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices in the order given; each is named once."""
        return devices_from(self.device)

    @field_validator("trusted_keys", mode="before")
    @classmethod
    def _separate_paths(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        paths = value.split(os.pathsep)
        if not all(paths):
            raise ValueError(f"{value!r} names an empty path; leave it out to trust no key")
        return paths

    @model_validator(mode="after")
    def _bounds_agree(self) -> Settings:
        if self.default_deadline_ms > self.max_deadline_ms:
            raise ValueError("default_deadline_ms must not exceed max_deadline_ms")
        if self.max_body_bytes > self.max_buffered_bytes:
            raise ValueError("max_body_bytes must not exceed max_buffered_bytes")
        if self.objective_ms and not 1.0 <= self.objective_ms <= 3_600_000.0:  # as a model's own objective
            raise ValueError("SACCADE_OBJECTIVE_MS must be 0, or a number between 1 and 3600000 ms")
        names = self.ladder_names
        if names and self.variant not in ("auto", names[0]):
            raise ValueError(
                f"variant is {self.variant}, but ladder begins with {names[0]}: the first of the ladder is served"
            )
        if self.max_concurrent_per_key and self.api_keys_file is None:
            raise ValueError(
                "SACCADE_MAX_CONCURRENT_PER_KEY needs SACCADE_API_KEYS_FILE: without keys there is no limit"
            )
        if self.admin_port and self.api_keys_file is None:
            raise ValueError("SACCADE_ADMIN_PORT needs SACCADE_API_KEYS_FILE, with a key of scope admin in it")
        if self.require_signature and not self.trusted_keys:
            raise ValueError("SACCADE_REQUIRE_SIGNATURE needs SACCADE_TRUSTED_KEYS: public keys of who may sign")
        return self


def settings_from(environment: Mapping[str, str], overrides: Mapping[str, Any] | None = None) -> Settings:
    """Reads settings from `SACCADE_*` variables, then `overrides` (command-line options). Raises SettingsError."""
    values: dict[str, Any] = {}
    for name, value in environment.items():
        if not name.startswith(PREFIX) or name in NOT_SETTINGS:
            continue
        field = name.removeprefix(PREFIX).lower()
        if field not in Settings.model_fields:
            known = ", ".join(PREFIX + known_field.upper() for known_field in Settings.model_fields)
            raise SettingsError(f"unknown setting {name}; known settings: {known}")
        values[field] = value
    values.update(overrides or {})
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        lines = [f"{_setting_name(item['loc'])}: {item['msg']}" for item in error.errors()]
        raise SettingsError("; ".join(lines)) from error


def _names_in(value: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in value.split(",")) if value.strip() else ()


def shares_from(text: str) -> dict[str, float]:
    """Parses shares of device time by model, as in "detector=2,segmenter=0.5". Raises ValueError."""
    shares: dict[str, float] = {}
    for part in filter(None, text.split(",")):
        model, _, given = part.partition("=")
        try:
            share = float(given)
        except ValueError:
            share = 0.0
        if not model or model in shares or not 0.01 <= share <= 100.0:
            raise ValueError(f"{part!r} is not MODEL=SHARE with a share from 0.01 to 100, each model once")
        shares[model] = share
    return shares


def pins_from(text: str) -> dict[str, int]:
    """Parses versions by model, as in "detector=3,segmenter=7". Raises ValueError."""
    pins: dict[str, int] = {}
    for part in _names_in(text):
        model, _, version = part.partition("=")
        is_number = version.isascii() and version.isdigit() and str(int(version)) == version
        if not model or model in pins or not is_number or not 1 <= int(version) <= MAX_VERSION:
            raise ValueError(f"{part!r} is not MODEL=VERSION with a number from 1, each model once")
        pins[model] = int(version)
    return pins


def _setting_name(location: tuple[int | str, ...]) -> str:
    return PREFIX + str(location[0]).upper() if location else "settings"


def core_count() -> int:
    """Counts the cores that this process may use: its affinity, or the container's CPU limit where that is less."""
    cores = len(os.sched_getaffinity(0))
    try:
        limit = cores_of_quota(_CPU_QUOTA.read_text("ascii"))
    except OSError:  # the process is not in a cgroup of version 2
        return cores
    return cores if limit is None else min(cores, limit)


def cores_of_quota(cpu_max: str) -> int | None:
    """Converts a cgroup's `cpu.max` ("200000 100000" is two) into whole cores, at least one; None without a limit."""
    quota, _, period = cpu_max.partition(" ")
    return None if quota == "max" else max(1, round(int(quota) / int(period)))


def resolved(settings: Settings, cores: int) -> Settings:
    """Replaces every 0 or None that means "choose for this machine" by a number."""
    # At least two, where there are two cores: one interpreter decodes while the other one handles HTTP.
    api_processes = settings.api_processes or max(min(2, cores), cores // 4)
    return settings.model_copy(
        update={
            # The workers share the cores; a worker on a GPU needs threads for operators without a GPU kernel.
            "device_threads": settings.device_threads or max(1, cores // len(settings.devices)),
            "api_processes": api_processes,
            "decode_threads": settings.decode_threads or max(2, cores // api_processes),
            "inline_decode_pixels": _inline_pixels(settings, api_processes, cores),
        }
    )


def _inline_pixels(settings: Settings, api_processes: int, cores: int) -> int:
    """Returns the largest JPEG, in pixels, that the event loop decodes itself.

    Handing an image to a thread costs as much as decoding a tiny one. With one process per core, threads gain
    nothing, so larger images are decoded in the event loop as well.
    """
    if settings.inline_decode_pixels is not None:
        return settings.inline_decode_pixels
    return _SMALL_PIXELS if api_processes >= cores else _TINY_PIXELS
