"""Plans under a secret: what nobody who holds it has sealed is refused."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from saccade.models.contract.manifest import GateCheck, GateDecision
from saccade.models.contract.plans import PLAN_RECORD, TIMING_CACHE
from saccade.service.errors import PlanRefused, SettingsError
from saccade.service.repository import plans
from saccade.service.repository.plan_seal import engines_secret
from saccade.service.repository.plans import (
    SEAL_FILE,
    TIMING_SEAL_FILE,
    PlanStore,
    StoredPlan,
)
from tests.support.plan_records import PLAN, key, record

SECRET = b"s" * 32
GATE = GateDecision(
    accepted=True, checks=(GateCheck(name="plan_precision", passed=True, value=1.0, limit=0.9, detail=""),)
)


@pytest.fixture
def store(tmp_path: Path) -> PlanStore:
    return PlanStore(tmp_path / "engines")


def find(store: PlanStore, **changes: object) -> StoredPlan | None:
    return store.find("digits", 1, "int8-trt", key(**changes))


@pytest.fixture
def sealed(tmp_path: Path) -> PlanStore:
    return PlanStore(tmp_path / "engines", SECRET)


def test_sealed_plan_is_read_before_and_after_its_gate(sealed: PlanStore) -> None:
    stored = sealed.put(record(), PLAN)

    sealed.update_record(stored, stored.record.model_copy(update={"gate": GATE}))

    found = find(sealed)
    assert found is not None
    assert found.record.gate == GATE
    assert sealed.read_plan(found) == PLAN


def test_between_the_two_writes_of_an_update_both_records_pass(
    sealed: PlanStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = sealed.put(record(), PLAN)
    seen: list[bool] = []
    real = plans.replace_file

    def look_first(directory: int, name: str, content: bytes) -> None:
        seen.append(find(sealed) is not None)
        real(directory, name, content)

    monkeypatch.setattr(plans, "replace_file", look_first)
    sealed.update_record(stored, stored.record.model_copy(update={"gate": GATE}))

    assert seen == [True, True, True]
    assert find(sealed) is not None


def test_plan_without_a_seal_is_refused_by_a_store_with_a_secret(store: PlanStore, sealed: PlanStore) -> None:
    store.put(record(), PLAN)

    with pytest.raises(PlanRefused, match=r"holds no plan\.hmac"):
        find(sealed)


def test_plan_sealed_with_another_secret_is_refused(tmp_path: Path, sealed: PlanStore) -> None:
    PlanStore(tmp_path / "engines", b"t" * 32).put(record(), PLAN)

    with pytest.raises(PlanRefused, match="does not carry the HMAC"):
        find(sealed)


def test_forged_gate_is_refused(sealed: PlanStore) -> None:
    stored = sealed.put(record(), PLAN)
    document = orjson.loads((stored.directory / PLAN_RECORD).read_bytes())
    document["gate"] = GATE.model_dump(mode="json")
    (stored.directory / PLAN_RECORD).write_bytes(orjson.dumps(document))

    with pytest.raises(PlanRefused, match="does not carry the HMAC"):
        find(sealed)


@pytest.mark.parametrize("seal", [b"", b"\n\n", b"0" * 64, b"x" * 1000])
def test_empty_or_wrong_seal_is_refused(sealed: PlanStore, seal: bytes) -> None:
    stored = sealed.put(record(), PLAN)
    (stored.directory / SEAL_FILE).write_bytes(seal)

    with pytest.raises(PlanRefused):
        find(sealed)


def test_timings_that_nobody_vouches_for_are_left_out(sealed: PlanStore) -> None:
    stored = sealed.put(record(), PLAN, timing_cache=b"timings")
    assert sealed.newest_timings("digits", "int8-trt", key()) == b"timings"

    (stored.directory / TIMING_CACHE).write_bytes(b"changed")
    assert sealed.newest_timings("digits", "int8-trt", key()) == b""

    (stored.directory / TIMING_SEAL_FILE).unlink()
    assert sealed.newest_timings("digits", "int8-trt", key()) == b""


def test_secret_is_read_from_a_file_and_must_be_long_enough(tmp_path: Path) -> None:
    (tmp_path / "good").write_bytes(SECRET + b"\n")
    (tmp_path / "short").write_bytes(b"short\n")

    assert engines_secret(tmp_path / "good") == SECRET
    with pytest.raises(SettingsError, match="holds 5 bytes, at least 32"):
        engines_secret(tmp_path / "short")
    with pytest.raises(SettingsError, match="cannot read"):
        engines_secret(tmp_path / "absent")
