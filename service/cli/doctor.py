"""`saccade doctor`: says what this machine can serve with, and what to install or change when it cannot."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import socket
import sys
from dataclasses import asdict
from pathlib import Path

import click
import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from saccade.service.backends.onnxruntime_backend import import_onnxruntime
from saccade.service.backends.openvino_backend import import_openvino, told
from saccade.service.cli.doctor_gpu import gpu_findings
from saccade.service.cli.findings import Finding
from saccade.service.cli.stored_repository import stored_keys
from saccade.service.device_names import CPU, device_kind
from saccade.service.errors import RuntimeMissing, SaccadeError, SettingsError
from saccade.service.repository.object_store.address import shown
from saccade.service.repository.open import list_versions
from saccade.service.repository.trusted_keys import signature_policy
from saccade.service.settings import Settings, core_count, resolved, settings_from

_MIN_OPEN_FILES = 4096
_ONNXRUNTIMES = ("onnxruntime", "onnxruntime-gpu")  # distributions with the same import name
_REINSTALL = (
    f"pip uninstall {' '.join(_ONNXRUNTIMES)}, then pip install 'saccade-serving[gpu]' (or 'saccade-serving[cpu]')"
)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="one JSON document for machines")
def doctor(as_json: bool) -> None:
    """Checks settings, runtimes, memory, port and repository."""
    findings = examine()
    if as_json:
        click.echo(orjson.dumps([asdict(finding) for finding in findings], option=orjson.OPT_INDENT_2))
    else:
        table = Table("check", "", "detail")
        marks = {True: "[green]ok", False: "[red]fails", None: "[yellow]note"}
        for finding in findings:
            table.add_row(finding.what, marks[finding.is_ok], Text(finding.detail))  # an extra's brackets are no style
        Console().print(table)
    if any(finding.is_ok is False for finding in findings):
        sys.exit(1)


def examine() -> list[Finding]:
    """Runs all checks in order; none raises."""
    try:
        settings = resolved(settings_from(os.environ), core_count())
    except SettingsError as error:
        return [Finding("settings", False, str(error))]
    return [
        Finding("settings", True, "SACCADE_* variables are known and valid"),
        Finding("python", sys.version_info >= (3, 11), platform.python_version()),
        Finding("cores", None, f"{core_count()}: {settings.device_threads} device threads, {_processes(settings)}"),
        _cpu_instructions(),
        _onnxruntime(settings),
        _openvino(),
        *gpu_findings(settings),
        _package("nvidia-nvimgcodec-cu13", "decodes JPEGs on NVIDIA GPUs; install the gpu-jpeg extra"),
        _shared_memory(),
        _open_files(),
        _port(settings),
        _signatures(settings),
        _repository(settings),
    ]


def _processes(settings: Settings) -> str:
    return f"{settings.api_processes} HTTP processes with {settings.decode_threads} image threads each"


def _cpu_instructions() -> Finding:
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return Finding("cpu", None, "unknown")
    known = [
        name
        for name in ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
        if name in text
    ]
    note = "" if any("vnni" in name or "amx" in name for name in known) else "; without VNNI int8 may not be faster"
    return Finding("cpu", None, (", ".join(known) or platform.machine()) + note)


def _onnxruntime(settings: Settings) -> Finding:
    try:
        runtime = import_onnxruntime()
    except RuntimeMissing as error:
        return Finding("onnxruntime", False, str(error))
    if all(_version_of(name) for name in _ONNXRUNTIMES):
        return Finding("onnxruntime", False, f"{' and '.join(_ONNXRUNTIMES)} overwrite each other: {_REINSTALL}")
    providers = ", ".join(runtime.get_available_providers())
    wanted = "CPUExecutionProvider" if device_kind(settings.devices[0]) == CPU else "CUDAExecutionProvider"
    is_there = wanted in runtime.get_available_providers()
    fix = "" if is_there else f": {_REINSTALL}"
    detail = f"{runtime.__version__} with {providers}; {settings.device} needs {wanted}{fix}"
    return Finding("onnxruntime", is_there, detail)


def _openvino() -> Finding:
    """Asks OpenVINO itself what this processor computes; no version needs it that has no variant for it."""
    version = _version_of("openvino")
    if not version:
        return Finding("openvino", None, "not installed (serves variants such as bf16-cpu; install the openvino extra)")
    try:
        capabilities = import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    except Exception as error:  # a wheel for another system fails in many ways
        return Finding("openvino", False, f"{version} does not start: {told(error)}")
    has_bf16 = "BF16" in capabilities
    note = "with bfloat16" if has_bf16 else "fp32 and int8, no bfloat16 on this processor: bf16-cpu does not serve here"
    return Finding("openvino", True if has_bf16 else None, f"{version} {note}")


def _package(name: str, use: str) -> Finding:
    version = _version_of(name)
    return Finding(name, True, version) if version else Finding(name, None, f"not installed ({use})")


def _version_of(distribution: str) -> str:
    """The installed version of a distribution; empty where it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _shared_memory() -> Finding:
    path = Path("/dev/shm")
    if not os.access(path, os.W_OK):
        return Finding("shared memory", None, "/dev/shm is not writable: sockets and metrics go to the temp directory")
    stats = os.statvfs(path)
    free_mib = stats.f_bavail * stats.f_frsize // 2**20
    return Finding("shared memory", free_mib >= 16, f"/dev/shm has {free_mib} MiB free")


def _open_files() -> Finding:
    import resource  # only POSIX has it, and only this function needs it

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    is_enough = soft == resource.RLIM_INFINITY or soft >= _MIN_OPEN_FILES
    return Finding("open files", True if is_enough else None, f"limit {soft}; one per connection")


def _port(settings: Settings) -> Finding:
    with socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            return Finding("port", False, f"{settings.host}:{settings.port}: {error.strerror}; set SACCADE_PORT")
    return Finding("port", True, f"{settings.host}:{settings.port} is free")


def _signatures(settings: Settings) -> Finding:
    try:
        policy = signature_policy(settings.trusted_keys, is_required=settings.require_signature)
    except SettingsError as error:
        return Finding("signatures", False, str(error))
    if not policy.trusted:
        return Finding("signatures", None, "not checked; SACCADE_TRUSTED_KEYS names the keys that count")
    demand = "required" if policy.is_required else "checked where there is one"
    return Finding("signatures", True, f"{demand}; trusted: {', '.join(sorted(policy.trusted))}")


def _repository(settings: Settings) -> Finding:
    try:
        keys = stored_keys(settings.repository)
        if keys is None:
            keys = [item.key for item in list_versions(settings.repository)]
    except SaccadeError as error:
        return Finding("repository", False, str(error))
    names = ", ".join(f"{key.model}/{key.version}" for key in keys)
    place = shown(settings.repository)
    return Finding("repository", bool(keys), f"{place}: {names or 'no version; run saccade-export'}")
