"""Follows the file of API keys. Promises: a key that is added or taken away there counts within a second."""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from saccade.service.ipc.api_keys import ApiKeys, keys_from, read_keys_file

log = structlog.get_logger()

_POLL_S = 0.5


class KeyWatch:
    """Reads the file again and again: a change of a Secret is a change of links, which file events do not tell."""

    def __init__(self, path: Path, keys: ApiKeys) -> None:
        self._path = path
        self._keys = keys
        self._known: str | None = None  # the text in force, or why there is none

    async def run(self) -> None:
        while True:
            await asyncio.to_thread(self.look)
            await asyncio.sleep(_POLL_S)

    def look(self) -> None:
        """A bad line counts as no key; a file that cannot be read changes nothing, since it says nothing."""
        try:
            text = read_keys_file(self._path)
        except (OSError, ValueError) as error:
            if self._known != str(error):
                self._known = str(error)
                log.error("api_keys_unreadable", path=str(self._path), error=str(error))
            return
        if text == self._known:
            return
        keys, problems = keys_from(text)
        self._keys.replace(keys)
        if self._known is not None or problems:  # the first look finds what the start has read
            log.info("api_keys_changed", keys=len(keys), refused=problems)
        self._known = text
