"""The files in which a process keeps its metrics for the one that is scraped, and the values in them.

prometheus-client reads these files. Its own values look for a fork and take a lock at every update, of which a request
makes fifteen, and they are never freed: each version would stay in memory and in every scrape.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict, mmap_key

_LOCK = "lock"  # readers look at *.db alone


class MetricFile(MmapedDict):
    """The values of one process and one kind of metric. Only one thread at a time may write or drop."""

    def __init__(self, filename: str) -> None:
        super().__init__(filename)  # type: ignore[no-untyped-call]  # untyped upstream
        self._numbers = memoryview(self._m).cast("d")  # a store of one is whole for readers, as pack_into's is not

    def _init_value(self, key: str) -> None:
        super()._init_value(key)  # type: ignore[no-untyped-call]  # untyped upstream
        self._numbers = memoryview(self._m).cast("d")  # it may have grown

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        """Writes a number; a series that was dropped comes back."""
        if key not in self._positions:
            self._init_value(key)
        place = self._positions[key] >> 3
        self._numbers[place] = value
        if timestamp:
            self._numbers[place + 1] = timestamp

    def close(self) -> None:
        self._numbers.release()
        super().close()  # type: ignore[no-untyped-call]  # untyped upstream

    def drop(self, is_dropped: Callable[[Mapping[str, str]], bool]) -> None:
        """Rewrites the file without the series of these labels, in one rename: a reader sees all of it, old or new.

        A value that is still held comes back, with all that it counted, when it is written again.
        """
        path = Path(self._fname)
        kept = path.with_suffix(".new")  # readers look at *.db alone
        rewritten = MetricFile(str(kept))
        for key, value, timestamp in self.read_all_values():  # type: ignore[no-untyped-call]  # untyped upstream
            if not is_dropped(json.loads(key)[2]):
                rewritten.write_value(key, value, timestamp)
        kept.replace(path)
        self.close()
        vars(self).update({**vars(rewritten), "_fname": str(path)})


class MetricFiles:
    """The files of this process, by kind; `value` is what prometheus-client is to make its values with."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: dict[str, MetricFile] = {}

    def value(
        self,
        kind: str,
        metric: str,
        name: str,
        labels: Sequence[str],
        label_values: Sequence[str],
        help_text: str,
        multiprocess_mode: str = "",
        **_: Any,
    ) -> Value:
        prefix = f"{kind}_{multiprocess_mode}" if multiprocess_mode else kind
        if prefix not in self._files:
            path = self._directory / f"{prefix}_{os.getpid()}.db"
            self._files[prefix] = MetricFile(str(path))
        key = mmap_key(metric, name, list(labels), list(label_values), help_text)
        return Value(self._files[prefix], key)

    def drop(self, is_dropped: Callable[[Mapping[str, str]], bool]) -> None:
        """Drops the series of these labels from counters, histograms and summaries; gauges are few."""
        for kind, file in self._files.items():
            if not kind.startswith("gauge"):
                file.drop(is_dropped)


class Value:
    """One number of a series."""

    __slots__ = ("_file", "_key", "_value")

    def __init__(self, file: MetricFile, key: str) -> None:
        self._file = file
        self._key = key
        self._value: float = file.read_value(key)[0]  # type: ignore[no-untyped-call]  # untyped upstream

    def inc(self, amount: float) -> None:
        self._value = value = self._value + amount
        file = self._file
        try:  # as `write_value` does it, without a call of it
            file._numbers[file._positions[self._key] >> 3] = value
        except KeyError:
            file.write_value(self._key, value, 0.0)

    def set(self, value: float, timestamp: float | None = None) -> None:
        self._value = value
        self._file.write_value(self._key, value, timestamp or 0.0)

    def get(self) -> float:
        return self._value

    def get_exemplar(self) -> None:
        """There are no exemplars in these files."""


def metric_files(directory: Path) -> MetricFiles:
    """Has this process, which never forks, keep its metrics in files of this folder."""
    files = MetricFiles(directory)
    values.ValueClass = files.value
    warnings.filterwarnings("ignore", "Removal of labels", UserWarning)  # `drop` does what it says is not there
    return files


def file_content(values_by_key: Mapping[str, float]) -> bytes:
    """Returns a file of these values, in the form of prometheus-client's `mmap_dict.py`."""
    entries = b"".join(_entry(key.encode(), value) for key, value in values_by_key.items())
    return struct.pack("i4x", 8 + len(entries)) + entries


def _entry(key: bytes, value: float) -> bytes:
    padded = key + b" " * (8 - (len(key) + 4) % 8)
    return struct.pack(f"i{len(padded)}sdd", len(key), padded, value, 0.0)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Waits until no file of an ended process is being taken into the sums, and holds that off; others may read too."""
    with (directory / _LOCK).open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield


@contextmanager
def locked_alone(directory: Path) -> Iterator[bool]:
    """Holds readers off; False at once while there are any."""
    with (directory / _LOCK).open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
