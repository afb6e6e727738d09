"""Refused requests are counted under the model of their path, and under names of clients' own never."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from saccade.service.api.app import build_api
from saccade.service.settings import Settings, resolved
from tests.unit.service.api.catalogs import catalog, manifests_of, status

SNAPSHOT = catalog(status(1, "warming"))  # as while its worker is replaced


@pytest.mark.parametrize("path", ["/v1/models/{}/predict", "/v1/models/{}/versions/1/predict", "/v2/models/{}/infer"])
async def test_request_while_a_model_loads_counts_for_it_and_an_invented_name_does_not(
    path: str, tmp_path: Path
) -> None:
    api = build_api(resolved(Settings(repository=tmp_path), cores=2), lambda generation: None)
    api.catalog.apply(SNAPSHOT, manifests_of(SNAPSHOT))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api.asgi), base_url="http://test") as client:
        codes = [(await client.post(path.format(model), content=b"")).status_code for model in ("digits", "invented")]

    counted = {
        tuple(sample.labels.values()): sample.value
        for metric in api.metrics.collected()
        for sample in metric.samples
        if sample.name in ("saccade_requests_total", "saccade_shed_total")
    }
    assert codes == [503, 404]
    assert counted == {
        ("digits", "", "unavailable"): 1,
        ("digits", "not_ready"): 1,
        ("unknown", "", "bad_request"): 1,
    }
    for pool in api.pools:
        pool.shutdown()
