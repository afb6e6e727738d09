"""What the comparison with peers measures, in which order, and how it goes on after a stop."""

from __future__ import annotations

from pathlib import Path

import pytest

from saccade.export.recipe import load_recipe
from tests.load.peers.__main__ import announcement
from tests.load.peers.plan import LIMIT, Load, Place, Visit, expected_s, longest_s, open_visits, visits
from tests.load.peers.rows import ReportRefused, Rows, settings_of
from tests.load.peers.servers import SERVERS, Server
from tests.load.peers.subjects import RECIPES, SUBJECTS, Subject, published
from tests.support.versions import publish_fake

LOAD = Load(seconds=10.0, factors=(0.5, 2.0))
CALL = {"commit": "abc"}


def server(name: str) -> Server:
    return next(each for each in SERVERS if each.name == name)


def planned(*names: str, rounds: int = 2) -> list[Visit]:
    return visits(SUBJECTS[:1], [server(name) for name in names], rounds, LOAD)


def rows_in(folder: Path, load: Load = LOAD, digest: str = "one") -> Rows:
    return Rows(folder / "report.json", settings_of(load, 2, {"resnet50": digest}), CALL)


def test_a_round_is_of_all_servers_before_the_next_one_begins() -> None:
    order = [(visit.round, visit.name) for visit in planned("saccade", "triton", "ray")]

    assert order == [
        (1, LIMIT),
        (1, "saccade"),
        (1, "triton"),
        (1, "ray"),
        (2, LIMIT),
        (2, "triton"),
        (2, "ray"),
        (2, "saccade"),
    ]


def test_a_tuned_server_follows_the_one_whose_capacity_it_is_loaded_with() -> None:
    names = [visit.name for visit in planned("triton-tuned", "saccade", "triton", rounds=1)]

    assert names.index("triton-tuned") == names.index("triton") + 1


def test_only_an_untuned_server_runs_the_closed_loop() -> None:
    _, base, tuned = planned("triton", "triton-tuned", rounds=1)

    assert [place.factor for place in base.places] == [0.0, 0.5, 2.0]
    assert [place.factor for place in tuned.places] == [0.5, 2.0]


def test_a_visit_with_something_left_is_repeated_and_the_others_are_not() -> None:
    plan = planned("triton", "ray", rounds=1)
    done = frozenset(place.key for visit in plan for place in visit.places if place.server != "ray")

    assert [visit.name for visit in open_visits(plan, done)] == ["ray"]
    assert open_visits(plan, done | {place.key for place in plan[-1].places}) == []


def test_time_is_announced_and_an_overloaded_server_gets_time_for_its_backlog() -> None:
    _, base, tuned = planned("triton", "triton-tuned", rounds=1)

    closed_s = LOAD.seconds + LOAD.closed_warm_up_s

    assert expected_s(base, LOAD) - closed_s > expected_s(tuned, LOAD) + 0.9 * LOAD.seconds
    assert longest_s(base, LOAD) > expected_s(base, LOAD)
    assert "2 visits, about 1 minutes; at most" in announcement([base, tuned], Load(seconds=2.0))


def test_every_tuned_server_has_its_base_beside_it() -> None:
    names = {each.name for each in SERVERS}

    assert {each.base for each in SERVERS} <= names
    assert all(server(each.base).base == each.base for each in SERVERS)


def test_rows_are_on_disk_at_once_and_a_failed_one_is_tried_again(tmp_path: Path) -> None:
    good, bad = Place("resnet50", "triton", 1), Place("resnet50", "ray", 1)
    first = rows_in(tmp_path)
    first.add(good, {"per_second": 100.0})
    first.add(bad, {"failed": "it ended"})

    again = rows_in(tmp_path)

    assert again.done() == {good.key}
    assert again.find(bad) is None
    found = again.find(good)
    assert found is not None
    assert (found["per_second"], found["call"]) == (100.0, 0)
    assert len(again.document["calls"]) == 2


@pytest.mark.parametrize(
    ("load", "digest", "named"),
    [
        (Load(seconds=5.0, factors=(0.5, 2.0)), "one", "seconds 10.0, now 5.0"),
        (Load(factors=(0.5, 2.0), decode="pillow"), "one", "decode saccade, now pillow"),
        (LOAD, "two", "another resnet50.onnx"),
    ],
)
def test_a_report_of_another_load_or_file_is_left_alone(tmp_path: Path, load: Load, digest: str, named: str) -> None:
    rows_in(tmp_path)

    with pytest.raises(ReportRefused, match=named):
        rows_in(tmp_path, load, digest)


def test_more_rates_may_join_a_report(tmp_path: Path) -> None:
    rows_in(tmp_path)

    more = rows_in(tmp_path, Load(factors=(1.0,)))

    assert more.document["settings"]["factors"] == [0.5, 1.0, 2.0]


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.name)
def test_recipes_of_the_subjects_are_read(subject: Subject) -> None:
    assert load_recipe(RECIPES / f"{subject.name}.yaml").recipe.model == subject.name


def test_a_network_of_another_recipe_is_published_again(tmp_path: Path) -> None:
    subject = Subject("resnet50", "fp32", 16)
    home = tmp_path / "subjects" / "resnet50"
    publish_fake(home / "repository", "resnet50", 1)
    (home / "subject.json").write_text("{}")
    recipe = (RECIPES / "resnet50.yaml").read_text("utf-8")

    (home / "recipe.yaml").write_text(recipe)
    found = published(subject, tmp_path)
    (home / "recipe.yaml").write_text(recipe.replace("int8-openvino", "fp32-openvino"))

    assert found is not None
    assert published(subject, tmp_path) is None
