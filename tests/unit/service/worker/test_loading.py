"""Loading: every allowed batch size is warmed, and what does not keep its word is refused."""

from __future__ import annotations

import hashlib
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saccade.models.contract.extras import ExtraKind
from saccade.models.contract.replay import REPLAY_FILE, replay_bytes
from saccade.service.backends.base import LoadRequest
from saccade.service.backends.fake_backend import FakeBackend
from saccade.service.errors import BackendError, RepositoryError
from saccade.service.ipc.messages import Load
from saccade.service.settings import Settings
from saccade.service.worker import loading
from saccade.service.worker.jpegs import WorkerJpegs
from saccade.service.worker.loading import load_instance
from tests.support.versions import EXPLANATION, UNFAMILIARITY, manifest_for, publish, with_extras, with_files

SETTINGS = Settings(backend="fake", device_threads=1)


def digest_of(version_dir: Path) -> str:
    manifest = version_dir / "manifest.json"
    return hashlib.sha256(manifest.read_bytes()).hexdigest() if manifest.exists() else ""


def load(
    version_dir: Path, settings: Settings = SETTINGS, variant: str = "fp32", manifest_sha256: str = ""
) -> tuple[Any, str, list[str]]:
    """The instance, its provider, and the events on the way."""
    events: list[str] = []

    def exclusive() -> Any:
        events.append("run")
        return nullcontext(True)

    digest = manifest_sha256 or digest_of(version_dir)
    message = Load(1, "digits", 1, variant, str(version_dir), digest, (1, 2, 4), settings.backend)
    instance, provider, memory_bytes = load_instance(
        message, settings, exclusive, lambda: events.append("warming"), WorkerJpegs(settings)
    )
    assert memory_bytes >= 0
    return instance, provider, events


@pytest.fixture
def version_dir(tmp_path: Path) -> Path:
    return publish(tmp_path, manifest_for("digits", 1))


def test_every_allowed_size_is_warmed_and_measured_while_the_device_is_held(version_dir: Path) -> None:
    instance, provider, events = load(version_dir)

    assert provider == "FakeExecutionProvider"
    assert events == ["warming"] + ["run"] * 9
    assert instance.limits.allowed_sizes == (1, 2, 4)
    assert all(instance.latency.batch_s(size) > 0 for size in (1, 2, 4))


def test_queue_delay_is_converted_once(version_dir: Path) -> None:
    instance, _, _ = load(version_dir, Settings(backend="fake", max_queue_delay_ms=20.0))

    assert instance.limits.max_queue_delay_s == pytest.approx(0.02)


def test_instance_decodes_jpegs_only_where_that_was_chosen(version_dir: Path) -> None:
    leaving, _, _ = load(version_dir)
    decoding, _, _ = load(version_dir, Settings(backend="fake", jpeg_decoder="gpu"))

    assert leaving.jpegs is None
    assert decoding.jpegs is not None


def test_a_variant_gives_no_map_of_another_size_than_the_first_ones(tmp_path: Path) -> None:
    manifest = with_extras(manifest_for("digits", 1), EXPLANATION)
    (first,) = manifest.variants
    larger = EXPLANATION.model_copy(update={"output": EXPLANATION.output.model_copy(update={"shape": (8, 8)})})
    other = first.model_copy(update={"name": "int8-cpu", "precision": "int8", "extras": (larger, UNFAMILIARITY)})
    version_dir = publish(tmp_path, manifest.model_copy(update={"variants": (first, other)}))

    assert load(version_dir)[0].gives == ExtraKind.EXPLAIN.bit
    assert load(version_dir, variant="int8-cpu")[0].gives == ExtraKind.TRUST.bit


def test_tampered_file_is_refused(version_dir: Path) -> None:
    (version_dir / "model.onnx").write_bytes(b"other")

    with pytest.raises(RepositoryError, match="SHA-256"):
        load(version_dir)


def test_missing_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="cannot read"):
        load(tmp_path)


def test_unknown_variant_is_refused(version_dir: Path) -> None:
    with pytest.raises(BackendError, match="no variant 'int8'"):
        load(version_dir, variant="int8")


@pytest.mark.parametrize(("precision", "merges"), [("fp32", True), ("int8", True), ("fp8", False)])
def test_float8_pairs_are_opened_as_they_were_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, merges: bool
) -> None:
    manifest = manifest_for("digits", 1)
    variant = manifest.variants[0].model_copy(update={"precision": precision})
    version_dir = publish(tmp_path, manifest.model_copy(update={"variants": (variant,)}))
    asked: list[LoadRequest] = []
    open_fake = FakeBackend.__init__

    def opened(self: FakeBackend, request: LoadRequest) -> None:
        asked.append(request)
        open_fake(self, request)

    monkeypatch.setattr(FakeBackend, "__init__", opened)
    load(version_dir)

    assert [request.merges_dequantized for request in asked] == [merges]


@pytest.mark.parametrize("fault", ["shape", "dtype"])
def test_output_that_is_not_as_declared_is_refused_at_warm_up(
    version_dir: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    def infer(self: FakeBackend, images: Any) -> list[Any]:
        scores = np.zeros((len(images), 9 if fault == "shape" else 10), np.float32 if fault == "shape" else np.float64)
        return [scores, np.zeros((len(images), 10), np.int32)]

    monkeypatch.setattr(FakeBackend, "infer", infer)

    with pytest.raises(BackendError, match=r"output 'scores' is float.* at batch 1, the manifest declares float32"):
        load(version_dir)


def test_backend_that_fails_at_warm_up_is_closed(version_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []

    def infer(self: FakeBackend, images: Any) -> list[Any]:
        raise BackendError("no kernel")

    monkeypatch.setattr(FakeBackend, "infer", infer)
    monkeypatch.setattr(FakeBackend, "close", lambda self: closed.append(True))

    with pytest.raises(BackendError, match="no kernel"):
        load(version_dir)
    assert closed == [True]


def test_manifest_that_changed_since_it_was_verified_is_refused(version_dir: Path) -> None:
    with pytest.raises(BackendError, match="changed after it was verified"):
        load(version_dir, manifest_sha256="0" * 64)


class OverlappingFake(FakeBackend):
    """The fake backend as a pipelined one: takes a free buffer per batch, and notes what each of them ran."""

    batches_in_flight = 4

    def __init__(self, request: LoadRequest) -> None:
        super().__init__(request)
        self.runs: list[tuple[int, int]] = []  # buffer and size
        self.rows: list[Any] = []
        self._free = [0, 1, 2, 3]
        self._flying: dict[int, Any] = {}

    def staging(self, batch_size: int) -> Any:
        self._staged = np.zeros((batch_size, 32, 32, 3), np.uint8)
        return self._staged

    def start(self) -> int:
        buffer = self._free.pop(0)
        self.runs.append((buffer, len(self._staged)))
        self.rows.append(self._staged)
        self._flying[buffer] = self._staged
        return buffer

    def finish(self, started: int) -> tuple[Any, float]:
        images = self._flying.pop(started)
        self._free = sorted([*self._free, started])
        return self.infer(images), len(images) / 100


@pytest.fixture
def overlapping(monkeypatch: pytest.MonkeyPatch) -> list[OverlappingFake]:
    """Those that were opened."""
    opened: list[OverlappingFake] = []

    def load_backend(_name: str, request: LoadRequest) -> OverlappingFake:
        opened.append(OverlappingFake(request))
        return opened[-1]

    monkeypatch.setattr(loading, "load_backend", load_backend)
    return opened


def test_pipelined_backend_is_warmed_in_each_of_its_buffers_and_measured_by_the_device(
    version_dir: Path, overlapping: list[OverlappingFake]
) -> None:
    instance, _, events = load(version_dir)

    assert set(overlapping[0].runs) == {(buffer, size) for buffer in range(4) for size in (1, 2, 4)}
    assert events == ["warming"] + ["run"] * 12  # for each of three sizes: all buffers at once, then three runs
    assert [instance.latency.batch_s(size) for size in (1, 2, 4)] == [0.01, 0.02, 0.04]


def test_rows_that_the_device_decodes_are_warmed_at_every_size(
    version_dir: Path, overlapping: list[OverlappingFake]
) -> None:
    load(version_dir)
    plain = len(overlapping[0].runs)

    load(version_dir, Settings(backend="fake", jpeg_decoder="gpu"))

    decoded = overlapping[1].rows[plain:]
    assert [len(rows) for rows in decoded] == [1, 1, 2, 2, 4, 4]
    assert all(row.std() > 1 for rows in decoded for row in rows), "a photograph lies in every row"


def test_backend_is_told_what_the_settings_say_of_overlapping(
    version_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[LoadRequest] = []

    def opened(_name: str, request: LoadRequest) -> FakeBackend:
        asked.append(request)
        return FakeBackend(request)

    monkeypatch.setattr(loading, "load_backend", opened)
    load(version_dir, SETTINGS.model_copy(update={"cuda_graphs": False, "batches_in_flight": 3}))

    assert (asked[0].cuda_graphs, asked[0].batches_in_flight, asked[0].execution_contexts) == (False, 3, 1)


def test_what_warm_up_compiled_is_kept_once_all_sizes_have_run(
    version_dir: Path, overlapping: list[OverlappingFake], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_by_then: list[set[int]] = []

    def keep_compiled(self: OverlappingFake) -> None:
        run_by_then.append({size for _, size in self.runs})

    monkeypatch.setattr(OverlappingFake, "keep_compiled", keep_compiled, raising=False)
    load(version_dir)

    assert run_by_then == [{1, 2, 4}]


def with_replay(tmp_path: Path, wrong: float) -> Path:
    """A version whose recorded scores are beside what the fake backend answers by this much."""
    image = np.full((1, 32, 32, 3), 200, np.uint8)
    scores = np.full((1, 10), 200 / 255 + wrong, np.float32)
    raw = replay_bytes(image, {"fp32": [scores, np.arange(10)[None]]})
    files = {"model.onnx": b"weights", REPLAY_FILE: raw}
    return publish(tmp_path, with_files(manifest_for("digits", 1), files), files=files)


def test_recorded_pictures_are_repeated_alone_before_the_version_is_ready(tmp_path: Path) -> None:
    _, _, events = load(with_replay(tmp_path, wrong=1e-4))

    assert events == ["warming"] + ["run"] * 10


def test_version_that_answers_otherwise_here_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"answers to 1 recorded pictures differ here by 0\.\d+, allowed for fp32"):
        load(with_replay(tmp_path, wrong=-0.3))


def test_damaged_recording_is_refused(tmp_path: Path) -> None:
    version_dir = with_replay(tmp_path, wrong=0.0)
    (version_dir / REPLAY_FILE).write_bytes(b"other bytes")

    with pytest.raises(RepositoryError, match="changed after its gate"):
        load(version_dir)
