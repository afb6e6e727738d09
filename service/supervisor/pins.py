"""Checks before the start that every version of SACCADE_SERVE_VERSIONS is there and may be served."""

from __future__ import annotations

from saccade.service.errors import RepositoryError, SettingsError
from saccade.service.repository.open import list_repository
from saccade.service.repository.trusted_keys import SignaturePolicy
from saccade.service.repository.verify import ensure_judged, verify_version
from saccade.service.settings import Settings
from saccade.service.supervisor.placement.specs import ensure_fits_slot


def ensure_pinned(settings: Settings, signatures: SignaturePolicy) -> None:
    """Raises SettingsError for a pinned version that is absent or refused; the text says what there is.

    The files are hashed here, and once more when the version is loaded.
    """
    if not settings.pins:
        return
    listing = list_repository(settings.repository)
    paths = {found.key: found.path for found in listing.versions}
    for model, version in settings.pins.items():
        numbers = ", ".join(map(str, listing.of(model))) or "none"
        models = ", ".join(sorted({key.model for key in paths})) or "none"
        path = next((paths[key] for key in paths if (key.model, key.version) == (model, version)), None)
        if path is None:
            there = f"its versions: {numbers}" if listing.of(model) else f"models: {models}"
            raise SettingsError(
                f"SACCADE_SERVE_VERSIONS: {settings.repository} has no version {version} of {model!r}; {there}"
            )
        try:
            manifest = verify_version(path, signatures).manifest
            ensure_judged(manifest, allow_unjudged=settings.allow_unjudged)
            ensure_fits_slot(manifest, settings)
        except RepositoryError as error:
            raise SettingsError(
                f"SACCADE_SERVE_VERSIONS: {model}/{version} is refused: {error}; its versions: {numbers}"
            ) from error
