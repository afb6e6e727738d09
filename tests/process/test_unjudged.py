"""Versions that passed without labels. Promises: refused by name, or served and called unjudged."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.images import red_png
from tests.support.server import Server, call_saccade, running_server, wait_until
from tests.support.versions import publish_fake


def test_an_unjudged_version_is_refused_with_what_to_do(tmp_path: Path) -> None:
    publish_fake(tmp_path / "repository", "judged", 1)
    publish_fake(tmp_path / "repository", "unjudged", 1, judged=False)

    with running_server(tmp_path / "repository", tmp_path) as server:
        refused = server.wait_state("unjudged", 1, "failed")

        assert "SACCADE_ALLOW_UNJUDGED" in refused["reason"]
        assert server.predict("judged", red_png(7)).status_code == 200


def test_where_it_is_allowed_it_is_served_without_figures_that_nobody_measured(tmp_path: Path) -> None:
    publish_fake(tmp_path / "repository", "unjudged", 1, judged=False)

    with running_server(tmp_path / "repository", tmp_path, allow_unjudged="true") as server:
        (version,) = server.client.get("/v1/models/unjudged").json()["versions"]

        assert server.predict("unjudged", red_png(7)).status_code == 200
        assert (version["judged"], version["metric"], version["operating_point"]) == (False, None, None)


def stands_in(server: Server, version: str) -> bool:
    """Whether this version answers in place of version 2, and `/v1/models` says why."""
    shown = server.model("digits")
    problem = (shown["serving"] or {"problem": ""})["problem"]
    return shown["default_version"] == version and "holds version 2 as stable, which is failed (" in problem


@pytest.mark.parametrize("history", [["promote", "3"], []], ids=["held before", "followed before"])
def test_one_that_is_held_takes_nothing_away_neither_when_a_worker_dies_nor_at_a_restart(
    tmp_path: Path, history: list[str]
) -> None:
    root = tmp_path / "repository"
    for version in (1, 2, 3):
        publish_fake(root, "digits", version, judged=version != 2)

    def rollout(*arguments: str) -> str:
        ended = call_saccade("rollout", arguments[0], "digits", *arguments[1:], "--repository", str(root))
        assert ended.returncode == 0, ended.stderr
        return ended.stderr

    if history:
        rollout(*history)
    with running_server(root, tmp_path) as server:
        assert "version 2 is unjudged" in rollout("rollback", "2")
        wait_until(lambda: stands_in(server, "3"), what="3 goes on, with the reason")
        restarts = server.metric("saccade_worker_restarts_total", device="cpu")
        server.worker().kill()
        wait_until(lambda: server.metric("saccade_worker_restarts_total", device="cpu") > restarts)
        wait_until(lambda: stands_in(server, "3") and server.is_ready(), what="3 is loaded again")
        assert server.predict("digits", red_png(7)).json()["version"] == "3"

    stable = "3" if history else "1"  # without a history, nobody asked for one that is newer than 2
    with running_server(root, tmp_path) as server:
        wait_until(lambda: stands_in(server, stable), what="the last good one is loaded")
        assert server.predict("digits", red_png(7)).json()["version"] == stable

    with running_server(root, tmp_path, allow_unjudged="true") as server:
        assert server.predict("digits", red_png(7)).json()["version"] == "2"
        assert server.model("digits")["serving"]["problem"] == ""
