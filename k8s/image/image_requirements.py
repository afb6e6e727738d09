"""Prints what an image installs, a requirement a line. Promises: pyproject's own words; unknown names are refused."""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from pathlib import Path
from typing import Any


def requirements(project: dict[str, Any], extras: list[str], without: list[str]) -> list[str]:
    """The project's dependencies and those of `extras`, less `without`. Raises ValueError on an unknown name."""
    optional = project["optional-dependencies"]
    unknown = [extra for extra in extras if extra not in optional]
    if unknown:
        raise ValueError(f"no extra {', '.join(unknown)}; pyproject.toml has {', '.join(optional)}")
    wanted = [*project["dependencies"], *(line for extra in extras for line in optional[extra])]
    stale = [name for name in without if name not in {distribution_name(line) for line in wanted}]
    if stale:
        raise ValueError(f"--without {', '.join(stale)}: not among the requirements, drop it")
    return list(dict.fromkeys(line for line in wanted if distribution_name(line) not in without))


def distribution_name(requirement: str) -> str:
    return re.split(r"[\s\[<>=!~;]", requirement, maxsplit=1)[0]


def main() -> None:
    """Reads pyproject.toml in the current directory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("extras", nargs="+", metavar="EXTRA")
    parser.add_argument("--without", nargs="+", default=[], metavar="NAME")
    arguments = parser.parse_args()
    project = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]
    try:
        lines = requirements(project, arguments.extras, arguments.without)
    except ValueError as error:
        sys.exit(f"image_requirements: {error}")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
