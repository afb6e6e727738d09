"""The build child: one order in, progress and one outcome out; only what passed its gate is accepted."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from saccade.export.plans.engine_build import DONE, FAILED, Say, run
from saccade.models.contract.manifest import read_manifest
from saccade.models.contract.plans import PlanKey, plan_key
from saccade.service.repository.plans import PlanStore, StoredPlan
from saccade.service.repository.verify import VerifiedVersion
from saccade.service.supervisor.engines.build_wire import (
    BuildLine,
    BuildOrder,
    BuildOutcome,
    BuildProgress,
    BuildStage,
    order_bytes,
    try_line,
)
from tests.pipeline.published_tiny import DENSE, FAST_SPARSE, SPARSE, Published
from tests.pipeline.recorded_device import RecordedDevice, Recording
from tests.support.plan_records import record


class StoringDevice(RecordedDevice):
    """A recorded device whose plans go through the store; that it is a recording can be hidden by a test."""

    def __init__(
        self, version: VerifiedVersion, store: PlanStore, published: Published, recording: Recording, is_recorded: bool
    ) -> None:
        super().__init__(published.loaded.recipe, recording, is_recorded=is_recorded)
        self.layers: dict[str, bytes] = {SPARSE: b'{"Layers": []}', DENSE: b'{"Layers": []}'}
        self.built: list[str] = []
        self._version, self._store = version, store

    def key_of(self, variant: str) -> PlanKey:
        found = self._version.manifest.variant(variant)
        assert found is not None
        return plan_key(self._version.manifest, found, "tensorrt", "11.4.0.12", ("SM90",))

    def ensure(self, variant: str, *, anew: bool = False) -> StoredPlan:
        manifest, key = self._version.manifest, self.key_of(variant)
        found = self._store.find(manifest.model, manifest.version, variant, key)
        if found is not None and not anew:
            return found
        self.built.append(variant)
        plan = f"plan {len(self.built)} of {variant}".encode()
        made = record(
            plan, model=manifest.model, version=manifest.version, variant=variant, key=key, dtypes={"int8": 3}
        )
        return self._store.put(made, plan, replace=anew)


class Bench:
    """Orders for the published version, and what became of them."""

    def __init__(self, published: Published, engines: Path) -> None:
        self.published = published
        self.engines = engines
        self.store = PlanStore(engines)
        self.devices: list[StoringDevice] = []
        self.manifest, self.manifest_sha256 = read_manifest(published.version_dir)

    def key(self, variant: str, version: str = "11.4.0.12") -> PlanKey:
        found = self.manifest.variant(variant)
        assert found is not None
        return plan_key(self.manifest, found, "tensorrt", version, ("SM90",))

    def order(self, variant: str, **changes: object) -> BuildOrder:
        fields: dict[str, object] = {
            "version_dir": str(self.published.version_dir),
            "manifest_sha256": self.manifest_sha256,
            "variant": variant,
            "engines_dir": str(self.engines),
            "engines_key_file": "",
            "key_json": self.key(variant).model_dump_json(),
        }
        return BuildOrder(**{**fields, **changes})  # type: ignore[arg-type]

    def run(
        self, order: BuildOrder, recording: Recording = FAST_SPARSE, *, is_recorded: bool = False
    ) -> tuple[int, list[BuildLine]]:
        def open_probe(key: PlanKey, version: VerifiedVersion, store: PlanStore, say: Say) -> StoringDevice:
            self.devices.append(StoringDevice(version, store, self.published, recording, is_recorded))
            return self.devices[-1]

        out = io.BytesIO()
        code = run(io.BytesIO(order_bytes(order)), out, open_probe)
        lines = [try_line(line) for line in out.getvalue().splitlines()]
        assert None not in lines
        return code, [line for line in lines if line is not None]

    def outcome(self, order: BuildOrder, recording: Recording = FAST_SPARSE) -> BuildOutcome:
        _, lines = self.run(order, recording)
        assert [isinstance(line, BuildOutcome) for line in lines] == [False] * (len(lines) - 1) + [True]
        outcome = lines[-1]
        assert isinstance(outcome, BuildOutcome)
        return outcome


@pytest.fixture
def bench(published: Published, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(published, tmp_path / "engines")
    yield made
    assert all(plan.is_closed for device in made.devices for plan in device.opened)


def test_plan_that_passes_its_gate_is_stored_with_its_figures(bench: Bench) -> None:
    code, lines = bench.run(bench.order(SPARSE))

    stored = bench.store.find("tiny-classifier", 1, SPARSE, bench.key(SPARSE))
    assert stored is not None
    assert stored.record.gate is not None
    assert stored.record.gate.accepted
    assert stored.record.measured_on is not None
    assert [figure.batch_size for figure in stored.record.latency] == list(bench.manifest.allowed_batch_sizes)
    assert stored.record.device_memory_bytes == 3_000_000
    assert bench.store.read_layers(stored) == b'{"Layers": []}'
    assert code == DONE
    assert lines[-1] == BuildOutcome(accepted=True, denied=False, reason="", plan_dir=str(stored.directory))
    stages = [line.stage for line in lines if isinstance(line, BuildProgress)]
    assert stages == [BuildStage.READING, BuildStage.MEASURING, BuildStage.STORING]


def test_plan_that_its_gate_denies_is_stored_as_denied(bench: Bench) -> None:
    recording = Recording(is_sparse_picked=False, seconds=FAST_SPARSE.seconds)

    outcome = bench.outcome(bench.order(SPARSE), recording)

    assert (outcome.accepted, outcome.denied) == (False, True)
    assert "sparse_tactic" in outcome.reason
    stored = bench.store.find("tiny-classifier", 1, SPARSE, bench.key(SPARSE))
    assert stored is not None
    assert stored.record.gate is not None
    assert not stored.record.gate.accepted


def test_accepted_plan_is_neither_built_nor_measured_twice(bench: Bench) -> None:
    bench.outcome(bench.order(DENSE))

    again = bench.outcome(bench.order(DENSE))

    assert again.accepted
    assert (bench.devices[1].built, bench.devices[1].opened) == ([], [])


def test_plan_that_was_built_ahead_is_measured_only(bench: Bench) -> None:
    bench.outcome(bench.order(DENSE))
    (stored,) = bench.store.all("tiny-classifier", 1)
    bench.store.update_record(stored, stored.record.model_copy(update={"gate": None}))

    assert bench.outcome(bench.order(DENSE)).accepted

    assert bench.devices[1].built == []
    assert len(bench.devices[1].opened) == 1


def test_plan_that_could_not_be_opened_is_built_anew(bench: Bench) -> None:
    bench.outcome(bench.order(DENSE))

    assert bench.outcome(bench.order(DENSE, anew=True)).accepted

    assert bench.devices[1].built == [DENSE]
    (stored,) = bench.store.all("tiny-classifier", 1)
    assert stored.record.gate is not None


def test_figures_of_a_recording_settle_nothing(bench: Bench) -> None:
    code, lines = bench.run(bench.order(DENSE), is_recorded=True)

    assert code == FAILED
    assert isinstance(lines[-1], BuildOutcome)
    assert "replayed from a recording" in lines[-1].reason
    (stored,) = bench.store.all("tiny-classifier", 1)
    assert stored.record.gate is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"manifest_sha256": "0" * 64}, "the manifest changed"),
        ({"version_dir": "/nowhere/tiny-classifier/1"}, "cannot read /nowhere"),
        ({"engines_key_file": "/nowhere/key"}, "SACCADE_ENGINES_KEY_FILE"),
    ],
)
def test_order_that_cannot_be_done_has_failed_with_a_reason(
    bench: Bench, changes: dict[str, object], reason: str
) -> None:
    outcome = bench.outcome(bench.order(DENSE, **changes))

    assert (outcome.accepted, outcome.denied) == (False, False)
    assert reason in outcome.reason


def test_machine_that_makes_another_plan_says_what_differs(bench: Bench) -> None:
    outcome = bench.outcome(bench.order(DENSE, key_json=bench.key(DENSE, "11.3.0.1").model_dump_json()))

    assert "runtime_version is 11.4.0.12, needed 11.3.0.1" in outcome.reason


def test_lines_are_json_objects(bench: Bench) -> None:
    out = io.BytesIO()
    order = bench.order(DENSE, manifest_sha256="0" * 64)
    run(io.BytesIO(order_bytes(order)), out, lambda *arguments: pytest.fail("the device must not be opened"))

    assert [orjson.loads(line)["type"] for line in out.getvalue().splitlines()] == ["progress", "outcome"]
