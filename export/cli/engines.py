"""Options of where plans lie. Promises: those of the server, so that both find the same store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EnginesOption = Annotated[
    Path | None, typer.Option(envvar="SACCADE_ENGINES_DIR", help="where plans lie; else .engines in the repository")
]
EnginesKeyOption = Annotated[
    Path | None, typer.Option(envvar="SACCADE_ENGINES_KEY_FILE", help="secret that vouches for plans")
]
