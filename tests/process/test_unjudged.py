"""Versions that passed without labels. Promises: refused by name, or served and called unjudged."""

from __future__ import annotations

from pathlib import Path

from tests.support.images import red_png
from tests.support.server import running_server
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
