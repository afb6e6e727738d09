"""What a published version has to show: its report and the pictures that travel with it. Off the predict path.

Promises: only files that the manifest lists, as it lists them.
"""

from __future__ import annotations

import base64
import hashlib
import io
from pathlib import Path

from fastapi import APIRouter, Response
from PIL import Image

from saccade.models.contract.manifest import Manifest
from saccade.models.contract.replay import REPLAY_FILE, ReplayDamaged, read_replay
from saccade.service.api.catalog import ServingCatalog
from saccade.service.api.http.schemas import ImageInput, Samples
from saccade.service.core import VersionKey
from saccade.service.errors import NotFound
from saccade.service.repository.confined_files import opened_directory, read_file

REPORT_FILE = "report.html"
_HTML = {"text/html": {"schema": {"type": "string"}}}
# A report is one page with pictures and styles inside, and without scripts.
_REPORT_HEADERS = {
    "content-security-policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; sandbox",
    "cache-control": "no-cache",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


def has_file(manifest: Manifest, name: str) -> bool:
    return any(entry.path == name for entry in manifest.files)


def version_files_router(catalog: ServingCatalog, repository: Path) -> APIRouter:
    """Routes over the files of versions that the catalog knows. They read files, so FastAPI runs them in a thread."""
    router = APIRouter(prefix="/v1/models/{model}/versions/{version}", tags=["models"])

    def content_of(model: str, version: str, name: str) -> bytes:
        manifest = catalog.manifest(VersionKey(model, int(version))) if version.isdecimal() else None
        if manifest is None:
            raise NotFound(f"no version {version!r} of {model!r} is loaded")
        return _listed_file(repository, manifest, name)

    @router.get("/report", response_class=Response, responses={200: {"content": _HTML}})
    def show_report(model: str, version: str) -> Response:
        content = content_of(model, version, REPORT_FILE)
        return Response(content, headers=_REPORT_HEADERS, media_type="text/html; charset=utf-8")

    @router.get("/samples", description="Pictures that travel with the version, as the body of a predict request.")
    def list_samples(model: str, version: str) -> Samples:
        raw = content_of(model, version, REPLAY_FILE)
        try:
            pictures, _ = read_replay(raw, "")
        except ReplayDamaged as error:
            raise NotFound(str(error)) from error
        return Samples(images=[ImageInput(b64=_png(Image.fromarray(pixels))) for pixels in pictures])

    return router


def _listed_file(repository: Path, manifest: Manifest, name: str) -> bytes:
    """Raises NotFound where the version has no such file, or another one by now."""
    model, version = manifest.model, str(manifest.version)
    entry = next((entry for entry in manifest.files if entry.path == name), None)
    if entry is None:
        raise NotFound(f"version {version} of {model!r} was published without {name}")
    try:
        with opened_directory(repository, (model, version)) as directory:
            content = read_file(directory, name, entry.size_bytes)
    except OSError as error:
        raise NotFound(f"{name} of version {version} of {model!r} cannot be read: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise NotFound(f"{name} of version {version} of {model!r} is not the published one any more")
    return content


def _png(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
