"""Variants compared on the machine that serves: real graphs, kept results, and no server that fails for it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from saccade.models.contract.manifest import Manifest
from saccade.models.contract.paired_speed import PairedSpeed
from saccade.service.repository.variants import choose_variant
from saccade.service.repository.verify import VerifiedVersion, verify_version
from saccade.service.settings import Settings, resolved
from saccade.service.supervisor.tuning import variant_speeds
from saccade.service.supervisor.tuning.comparing import compare, sizes_within
from saccade.service.supervisor.tuning.variant_speeds import ComparedHere, Comparison, compared_here, comparison_for
from tests.support.graphs import classifier_graph, slowed
from tests.support.versions import manifest_for, publish, with_files, with_variants

FASTER = PairedSpeed(
    against="fp32", device_kind="cpu", ratio=2.0, ci_low=1.9, ci_high=2.1, rounds=9, batch_sizes=(1, 8)
)


@pytest.fixture
def version(tmp_path: Path) -> VerifiedVersion:
    """The exporter says that int8 is half as fast; here fp32 has far more to do."""
    files = {"fp32.onnx": slowed(classifier_graph()), "int8_cpu.onnx": classifier_graph()}
    manifest = with_variants(manifest_for("digits", 1), fp32=(0.95, 200), int8_cpu=(0.94, 100))
    variants = tuple(
        item.model_copy(update={"file": f"{item.name.replace('-', '_')}.onnx"}) for item in manifest.variants
    )
    whole = with_files(manifest.model_copy(update={"variants": variants}), files)
    return verify_version(publish(tmp_path, whole, files=files))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return resolved(Settings(repository=tmp_path, device_threads=1), 2)


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    structlog.reset_defaults()
    with capture_logs() as captured:
        yield captured


@pytest.fixture
def orders(monkeypatch: pytest.MonkeyPatch) -> list[Comparison]:
    """Comparisons that were made; int8 is twice as fast."""
    made: list[Comparison] = []

    async def measured(order: Comparison) -> ComparedHere:
        made.append(order)
        return ComparedHere(pairs={"fp32": (), "int8-cpu": (FASTER,)})

    monkeypatch.setattr(variant_speeds, "_measured", measured)
    return made


def chosen(manifest: Manifest) -> str:
    return choose_variant(manifest, "cpu", "auto").name


def here(version: VerifiedVersion, settings: Settings, *, may_measure: bool = True) -> VerifiedVersion:
    return asyncio.run(compared_here(version, settings, may_measure=may_measure))


def test_what_is_faster_on_this_machine_serves_whatever_the_exporter_measured(
    version: VerifiedVersion, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert chosen(version.manifest) == "fp32"

    found = here(version, settings)

    assert found.is_compared_here
    assert chosen(found.manifest) == "int8-cpu"
    assert found.manifest_sha256 == version.manifest_sha256
    monkeypatch.setattr(variant_speeds, "_measured", None)  # the next start knows
    assert here(version, settings) == found


def test_other_threads_or_batch_sizes_are_compared_again(
    version: VerifiedVersion, settings: Settings, orders: list[Comparison]
) -> None:
    for changes in ({}, {}, {"device_threads": 2}, {"max_batch_size": 4}, {"allow_spinning": True}):
        here(version, settings.model_copy(update=changes))

    assert [(order.threads, order.batch_sizes[-1], order.allow_spinning) for order in orders] == [
        (1, 8, False),
        (2, 8, False),
        (1, 4, False),
        (1, 8, True),
    ]
    assert orders[0].variants == ("fp32", "int8-cpu")


@pytest.mark.parametrize(
    "changes",
    [
        {"tuning": "off"},
        {"backend": "fake"},
        {"device": "cuda:0"},
        {"variant": "fp32"},
        {"ladder": "fp32,int8-cpu"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_nothing_is_compared_where_nothing_is_open(
    version: VerifiedVersion, settings: Settings, changes: dict[str, object]
) -> None:
    assert comparison_for(version, settings.model_copy(update=changes)) is None


def test_a_ladder_by_measurements_needs_the_comparison(version: VerifiedVersion, settings: Settings) -> None:
    named = settings.model_copy(update={"ladder": "auto", "variant": "fp32"})

    assert comparison_for(version, named) is not None


def test_one_variant_is_compared_with_nothing(tmp_path: Path, settings: Settings) -> None:
    alone = verify_version(publish(tmp_path, manifest_for("single", 1)))

    assert comparison_for(alone, settings) is None


def test_a_waiting_request_waits_for_no_comparison_but_uses_a_known_one(
    version: VerifiedVersion, settings: Settings, orders: list[Comparison]
) -> None:
    assert here(version, settings, may_measure=False) is version
    assert orders == []
    here(version, settings)
    assert here(version, settings, may_measure=False).is_compared_here


def test_failure_is_said_and_the_exporters_comparison_stands(
    version: VerifiedVersion, settings: Settings, monkeypatch: pytest.MonkeyPatch, logs: list[dict[str, Any]]
) -> None:
    monkeypatch.setattr(variant_speeds, "_MODULE", "saccade.no_such_module")

    assert here(version, settings) is version
    assert logs[-1]["event"] == "variants_not_compared"
    assert "no_such_module" in logs[-1]["reason"]


def test_a_variant_that_does_not_open_is_named_and_not_kept(
    version: VerifiedVersion, settings: Settings, monkeypatch: pytest.MonkeyPatch, logs: list[dict[str, Any]]
) -> None:
    async def measured(order: Comparison) -> ComparedHere:
        (version.path / "int8_cpu.onnx").write_bytes(b"changed")
        return await asyncio.to_thread(compare, order)

    monkeypatch.setattr(variant_speeds, "_measured", measured)
    found = here(version, settings)

    assert chosen(found.manifest) == "fp32"
    assert [(line["variant"], line["log_level"]) for line in logs if line["event"] == "variant_not_timed"] == [
        ("int8-cpu", "warning")
    ]
    assert not (settings.repository / ".tuning").exists()


@pytest.mark.parametrize(("low", "high", "is_kept"), [(0.98, 1.02, True), (0.8, 1.6, False), (1.1, 3.0, True)])
def test_a_doubt_that_a_calmer_machine_may_end_is_not_kept(low: float, high: float, is_kept: bool) -> None:
    pair = FASTER.model_copy(update={"ci_low": low, "ratio": 1.01, "ci_high": high})

    assert ComparedHere(pairs={"fp32": (), "int8-cpu": (pair,)}).is_worth_keeping == is_kept


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"pairs"', '"no"'),
        ('"fp32": []', '"fp16": []'),
        ('"against": "fp32"', '"against": "fp16"'),
        ('"against": "fp32"', '"against": "int8-cpu"'),
        ('"cpu"', '"cuda"'),
        ('"ratio": 2.0', '"ratio": 3.0'),
        ('"ci_high": 2.1', '"ci_high": Infinity'),
        ('"ci_low": 1.9', '"ci_low": 2.05'),
        ('"rounds": 9', '"rounds": 1000'),
        ('"rounds": 9', '"rounds": 5'),
        ('"failures": {}', '"failures": {"fp32": "no memory"}'),
    ],
)
def test_a_damaged_result_is_measured_again(
    version: VerifiedVersion, settings: Settings, orders: list[Comparison], old: str, new: str
) -> None:
    here(version, settings)
    (kept,) = (settings.repository / ".tuning").iterdir()
    content = kept.read_text("utf-8")
    assert old in content
    kept.write_text(content.replace(old, new), "utf-8")

    assert chosen(here(version, settings).manifest) == "int8-cpu"
    assert len(orders) == 2


@pytest.mark.parametrize("content", ["{}", '{"pairs": {}}', '{"pairs": {"fp32": [], "int8-cpu": []}}'])
def test_a_result_without_the_pairs_is_measured_again(
    version: VerifiedVersion, settings: Settings, orders: list[Comparison], content: str
) -> None:
    here(version, settings)
    (kept,) = (settings.repository / ".tuning").iterdir()
    kept.write_text(content, "utf-8")

    assert chosen(here(version, settings).manifest) == "int8-cpu"
    assert len(orders) == 2


def test_slow_networks_are_compared_at_small_batches() -> None:
    assert sizes_within(1.5, 0.001, (1, 2, 4, 8, 16)) == (1, 16)
    assert sizes_within(1.5, 0.020, (1, 2, 4, 8, 16)) == (1, 4)
    assert sizes_within(1.5, 1.0, (1, 2, 4, 8, 16)) == (1,)
