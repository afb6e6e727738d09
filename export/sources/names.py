"""Names networks and their classes, and answers an unknown name with the nearest known ones."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from saccade.export.errors import SourceError

_NEAR = 5  # names shown with a miss


def near_names(name: str, known: Sequence[str], count: int = _NEAR) -> list[str]:
    """The known names closest to `name`; some that begin with it come first."""
    similar = difflib.get_close_matches(name.lower(), known, n=count, cutoff=0.6)
    longer = [each for each in known if name and each.startswith(name.lower())]
    return list(dict.fromkeys([*longer[: count // 2], *similar, *longer]))[:count]


def unknown_name(library: str, name: str, known: Sequence[str]) -> SourceError:
    """The error for a name that a library does not have."""
    near = near_names(name, known)
    hint = f"did you mean {', '.join(near)}? " if near else ""
    family = re.match(r"[a-z]*", name.lower())
    pattern = f" '{family[0]}*'" if family and family[0] else ""
    return SourceError(
        f"source: {library} has no network {name!r}; {hint}"
        f"`saccade-export sources{pattern}` lists what there is ({len(known)} in {library})"
    )


def generic_labels(classes: int) -> tuple[str, ...]:
    """Labels of a network whose classes nobody named."""
    return tuple(f"class {index}" for index in range(classes))
