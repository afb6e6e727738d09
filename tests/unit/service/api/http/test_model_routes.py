"""GET /v1/models lists what cannot be a version, too, by its very name."""

from __future__ import annotations

import httpx
import msgspec
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from saccade.service.api.catalog import ServingCatalog
from saccade.service.api.http.model_routes import model_router
from saccade.service.ipc.messages import RefusedStatus
from saccade.service.metrics import Metrics
from tests.unit.service.api.catalogs import catalog, manifests_of, status


@pytest.mark.parametrize("name", ["", "seg", "serving.json", "1 2", "-3", "\u00b2", "99999999999999999999"])
@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/{model}"])
@pytest.mark.parametrize("model", ["digits", "other"])
async def test_refused_name_that_may_be_no_number_is_listed_with_its_reason(name: str, path: str, model: str) -> None:
    served = ServingCatalog(Metrics(CollectorRegistry()), lambda generation: None)
    plain = catalog(status(1), status(2))
    refused = (RefusedStatus(model, name, "rename it"),)
    served.apply(msgspec.structs.replace(plain, refused=refused), manifests_of(plain))
    app = FastAPI()
    app.include_router(model_router(served))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        answer = (await client.get(path.format(model=model))).raise_for_status().json()

    models = {each["name"]: each for each in answer.get("models", [answer])}
    versions = [(each["version"], each["state"], each["reason"]) for each in models[model]["versions"]]
    good = [("2", "ready", ""), ("1", "ready", "")] if model == "digits" else []
    assert versions == [*good, (name, "failed", "rename it")]
    assert models[model]["default_version"] == ("2" if good else None)
