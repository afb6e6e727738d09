"""Which key a path asks for."""

from __future__ import annotations

import pytest

from saccade.service.api.http.key_gate import scope_needed
from saccade.service.ipc.api_keys import Scope

NOTHING: frozenset[str] = frozenset()


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/v2/health/ready"])
def test_probes_never_need_a_key(path: str) -> None:
    assert scope_needed("GET", path, NOTHING) is None


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/openapi.json", "/playground/api.js", "/metrics", "/v1/models", "/v2", "/absent"]
)
def test_everything_else_is_for_readers(path: str) -> None:
    assert scope_needed("GET", path, NOTHING) is Scope.READ


@pytest.mark.parametrize("path", ["/v2/repository/models/m/load", "/v2/repository/models/m/unload"])
def test_loading_is_for_admins(path: str) -> None:
    assert scope_needed("POST", path, frozenset({"metrics", "docs"})) is Scope.ADMIN


@pytest.mark.parametrize("path", ["/v1/models/m/predict", "/v1/models/m/labels/l/predict", "/v2/models/m/infer"])
def test_predictions_ask_for_their_key_themselves(path: str) -> None:
    assert scope_needed("POST", path, NOTHING) is None
    assert scope_needed("GET", path, NOTHING) is Scope.READ


@pytest.mark.parametrize(
    ("opened", "path", "needed"),
    [
        ("metrics", "/metrics", None),
        ("metrics", "/docs", Scope.READ),
        ("docs", "/docs/oauth", None),
        ("docs", "/", None),
        ("docs", "/playground/api.js", None),
        ("docs", "/metrics", Scope.READ),
        ("docs", "/v1/models", Scope.READ),
    ],
)
def test_what_is_opened_by_setting_needs_none(opened: str, path: str, needed: Scope | None) -> None:
    assert scope_needed("GET", path, frozenset({opened})) is needed
