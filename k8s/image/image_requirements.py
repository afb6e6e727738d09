"""Prints what an image installs, a requirement a line. Promises: pyproject's own words; unknown names are refused."""

from __future__ import annotations

import argparse
import sys
import tomllib
from pathlib import Path
from typing import Any


def requirements(project: dict[str, Any], extras: list[str]) -> list[str]:
    """The project's dependencies and those of `extras`. Raises ValueError on an unknown name."""
    optional = project["optional-dependencies"]
    unknown = [extra for extra in extras if extra not in optional]
    if unknown:
        raise ValueError(f"no extra {', '.join(unknown)}; pyproject.toml has {', '.join(optional)}")
    return list(dict.fromkeys([*project["dependencies"], *(line for extra in extras for line in optional[extra])]))


def main() -> None:
    """Reads pyproject.toml in the current directory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("extras", nargs="+", metavar="EXTRA")
    arguments = parser.parse_args()
    project = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]
    try:
        lines = requirements(project, arguments.extras)
    except ValueError as error:
        sys.exit(f"image_requirements: {error}")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
