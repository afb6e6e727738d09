"""The OpenAPI document: what generated clients hold on to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from saccade.service.api.app import PREDICT_PATHS, build_api
from saccade.service.settings import Settings, resolved


@pytest.fixture
def document() -> dict[str, Any]:
    api = build_api(resolved(Settings(backend="fake"), cores=2), lambda generation: None)
    for pool in api.pools:
        pool.shutdown()
    found: dict[str, Any] = api.app.openapi()
    return found


def references(node: object) -> set[str]:
    match node:
        case {"$ref": str(target)}:
            return {target}
        case dict():
            return {name for value in node.values() for name in references(value)}
        case list():
            return {name for value in node for name in references(value)}
    return set()


def test_openapi_document_is_as_stored(check_golden: Callable[[str, str], None], document: dict[str, Any]) -> None:
    document["info"]["version"] = "any"
    text = orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode() + "\n"

    check_golden("openapi.json", text)


def test_openapi_document_describes_every_predict_path(document: dict[str, Any]) -> None:
    for path in PREDICT_PATHS:
        operation = document["paths"][path]["post"]
        named = {parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "path"}
        assert named == {part[1:-1] for part in path.split("/") if part.startswith("{")}


def test_every_reference_in_the_document_leads_somewhere(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]

    assert references(document) <= {f"#/components/schemas/{name}" for name in schemas}


def test_operation_ids_are_unique(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]

    assert len(ids) == len(set(ids))
