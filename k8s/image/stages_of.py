"""Prints a Dockerfile (from standard input) with only the stages one target needs. Promises: their text unchanged.

Docker skips the others by itself; buildah before 1.29 builds every stage above the target, PyTorch included.
"""

from __future__ import annotations

import re
import sys

_FROM = re.compile(r"^FROM\s+(?P<base>\S+)\s+AS\s+(?P<name>\S+)$", re.MULTILINE)
_COPY_FROM = re.compile(r"^COPY\s+--from=(\S+)", re.MULTILINE)


def split_stages(dockerfile: str) -> tuple[str, dict[str, str]]:
    """What stands before the first stage, and the text of each stage by name, in order."""
    starts = list(_FROM.finditer(dockerfile))
    ends = [*(start.start() for start in starts[1:]), len(dockerfile)]
    stages = {start["name"]: dockerfile[start.start() : end] for start, end in zip(starts, ends, strict=True)}
    return dockerfile[: starts[0].start()], stages


def needed_stages(stages: dict[str, str], target: str) -> list[str]:
    """`target` and all it builds on, in the file's order. Raises ValueError when there is no such stage."""
    if target not in stages:
        raise ValueError(f"no stage {target!r}; there are {', '.join(stages)}")
    needed: set[str] = set()
    pending = [target]
    while pending:
        name = pending.pop()
        if name in stages and name not in needed:
            needed.add(name)
            pending += [match["base"] for match in _FROM.finditer(stages[name])]
            pending += _COPY_FROM.findall(stages[name])
    return [name for name in stages if name in needed]


def main() -> None:
    """The target is the only argument."""
    (target,) = sys.argv[1:]
    preamble, stages = split_stages(sys.stdin.read())
    try:
        names = needed_stages(stages, target)
    except ValueError as error:
        sys.exit(f"stages_of: {error}")
    print(preamble + "".join(stages[name] for name in names), end="")


if __name__ == "__main__":
    main()
