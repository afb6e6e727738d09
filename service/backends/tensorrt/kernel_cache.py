"""Kernels that TensorRT for RTX compiled on a GPU, kept beside their plan, so that the next load need not compile them.

TensorRT for RTX compiles kernels for each shape when a plan first runs on a GPU. Its runtime cache holds them, and
refuses by itself what another version, GPU or driver made. They are programs as the plan is, so with a secret only
those that carry its HMAC reach TensorRT. Without a secret, the same line shows files that were cut off.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import structlog

from saccade.service.repository.confined_files import opened_directory, read_file, replace_file
from saccade.service.repository.plan_seal import Seal

log = structlog.get_logger()

_MOST_BYTES = 512 * 1024 * 1024


class KernelCache:
    """The runtime cache of one opened plan, and its file."""

    def __init__(self, cache: Any, plan_dir: Path, device_name: str, seal: Seal) -> None:
        """Fills TensorRT's `cache` from the file, where it has one that fits."""
        self._cache = cache
        self._plan_dir = plan_dir
        self._name = file_name(device_name)
        self._seal = seal
        self._kept = b""
        self._load()

    def _load(self) -> None:
        try:
            with opened_directory(self._plan_dir, ()) as directory:
                seal, _, kernels = read_file(directory, self._name, _MOST_BYTES).partition(b"\n")
        except FileNotFoundError:
            return
        except OSError as error:
            self._refused(error.strerror or str(error))
            return
        if not self._seal.is_whole(kernels, seal):
            self._refused("it is damaged, or was written without this server's secret")
        elif not self._cache.deserialize(kernels):
            self._refused("TensorRT says that it is of another version, GPU or driver")
        else:
            self._kept = kernels
            log.info("kernels_loaded", plan=str(self._plan_dir), kernel_bytes=len(kernels))

    def keep(self) -> None:
        """Replaces the file in one rename where kernels were compiled since; without write access they are not kept."""
        kernels = bytes(self._cache.serialize())
        if not kernels or kernels == self._kept:
            return
        try:
            with opened_directory(self._plan_dir, ()) as directory:
                replace_file(directory, self._name, self._seal.of(kernels) + kernels)
        except OSError as error:
            log.info("kernels_not_kept", plan=str(self._plan_dir), reason=error.strerror or str(error))
            return
        self._kept = kernels
        log.info("kernels_kept", plan=str(self._plan_dir), kernel_bytes=len(kernels))

    def _refused(self, reason: str) -> None:
        log.warning("kernels_refused", file=str(self._plan_dir / self._name), reason=reason, effect="compiled again")


def file_name(device_name: str) -> str:
    """The file of one kind of GPU: a plan may run on several, and each has kernels of its own."""
    readable = re.sub(r"[^a-z0-9]+", "-", device_name.lower()).strip("-")[:40]
    return f"kernels-{readable}-{hashlib.sha256(device_name.encode()).hexdigest()[:8]}.cache"
