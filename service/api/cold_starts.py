"""Holds requests until their model is loaded, within a bound on number and time; all wait for the same load."""

from __future__ import annotations

import asyncio

from saccade.service.api.catalog import ServingCatalog, ServingTarget
from saccade.service.core import VersionKey
from saccade.service.errors import NotLoaded, NotReady

_UNMEASURED_S = 5.0  # Retry-After while no load of the version has been timed


class ColdStarts:
    """The waiting requests of one API process; only the event loop of that process may call it."""

    def __init__(self, catalog: ServingCatalog, max_waiting: int) -> None:
        self._catalog = catalog
        self._max_waiting = max_waiting
        self._waiting = 0

    async def wait(
        self, unloaded: NotLoaded, model: str, version: str | None, label: str | None, within_s: float
    ) -> ServingTarget:
        """Returns the version that answers, once it is loaded.

        Raises NotReady when it is not loaded in time or too many requests wait, NotFound when it has left the catalog.
        """
        key = VersionKey(unloaded.model, unloaded.version)
        self._catalog.ask(key)
        if self._waiting >= self._max_waiting:
            raise self._too_long(key, f"{self._waiting} requests of this process wait for models already")
        self._waiting += 1
        try:
            async with asyncio.timeout(within_s):
                while True:
                    await self._catalog.changed()
                    try:
                        return self._catalog.resolve(model, version, label)
                    except NotLoaded as still:
                        self._catalog.ask(VersionKey(still.model, still.version))  # it may have been evicted again
        except TimeoutError:
            raise self._too_long(key, f"not loaded within the {within_s:.3g} s of this request") from None
        finally:
            self._waiting -= 1

    def _too_long(self, key: VersionKey, why: str) -> NotReady:
        measured_s = self._catalog.load_seconds(key)
        usual = f"; its last load took {measured_s:.3g} s" if measured_s else ""
        return NotReady(
            f"{key.model}/{key.version} is being loaded, {why}{usual}: retry later, or pin it with "
            "SACCADE_PINNED_MODELS",
            measured_s or _UNMEASURED_S,
        )
