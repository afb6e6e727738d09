"""GET /v1/models/{model}/disagreements: where a shadow disagreed, for keys of scope admin.

These are pictures of other people's requests, so a server without keys shows them to nobody.
"""

from __future__ import annotations

import base64
from pathlib import Path

from fastapi import APIRouter

from saccade.service.api.catalog import ServingCatalog
from saccade.service.api.http.schemas import ImageInput, ShadowDisagreement
from saccade.service.errors import NotFound
from saccade.service.ipc.api_keys import Forbidden
from saccade.service.repository.disagreements import Disagreement, disagreements, kept_picture


def shadow_router(catalog: ServingCatalog, repository: Path, *, has_keys: bool) -> APIRouter:
    """One route, which reads files; FastAPI runs it in a thread."""
    router = APIRouter(tags=["models"])

    @router.get("/v1/models/{model}/disagreements", description="Worst first, of the last week.")
    def list_disagreements(model: str) -> list[ShadowDisagreement]:
        if not has_keys:
            raise Forbidden("what others asked is shown to keys of scope admin alone: set SACCADE_API_KEYS_FILE")
        if model not in {status.model for status in catalog.snapshot.versions}:
            raise NotFound(f"no model {model!r} is loaded")
        try:
            found = disagreements(repository, model)
        except OSError as error:
            raise NotFound(f"what was kept of {model!r} cannot be read: {error.strerror}") from error
        return [_shown(repository, each) for each in found]

    return router


def _shown(repository: Path, found: Disagreement) -> ShadowDisagreement:
    picture = kept_picture(repository, found)
    return ShadowDisagreement(
        stable=str(found.stable),
        candidate=str(found.candidate),
        agreement=found.agreement,
        stable_said=found.stable_said,
        candidate_said=found.candidate_said,
        at=found.at,
        request_id=found.request_id,
        picture=ImageInput(b64=base64.b64encode(picture).decode("ascii")) if picture is not None else None,
    )
