"""Types of the measurements' arguments for argparse: what is wrong is said in one line, with exit code 2."""

from __future__ import annotations

import math
from argparse import ArgumentTypeError
from pathlib import Path

from saccade.service.errors import RepositoryError
from saccade.service.repository.open import newest_versions


def seconds_above_0(text: str) -> float:
    """A duration above 0. Raises ArgumentTypeError."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 < value < math.inf:
        raise ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def count_from_1(text: str) -> int:
    """A whole number from 1. Raises ArgumentTypeError."""
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def repository_with_versions(text: str) -> Path:
    """A model repository with at least one version. Raises ArgumentTypeError."""
    try:
        is_empty = not newest_versions(Path(text))
    except RepositoryError as error:
        raise ArgumentTypeError(str(error)) from error
    if is_empty:
        raise ArgumentTypeError(f"{text} holds no version of a model")
    return Path(text)
