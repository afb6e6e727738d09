"""What each server of a repository counted of a rollout, in files beside the document, so that all judge by all of it.

A file belongs to one server and one generation of the document, and is replaced as a whole. What a server counted stays
true after it ended, so files go only with their generation.
"""

from __future__ import annotations

import os
import re
import socket
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from saccade.service.repository.confined_files import names_in, opened_directory, read_file, replace_file
from saccade.service.supervisor.rollout.decide import Arm

_PLACE = (".serving", "counts")  # below the model; servers take a name with a dot for no version
_MOST_BYTES = 256 * 1024
_NAME = re.compile(r"(?P<generation>\d{1,19})-(?P<server>[\w.-]{1,128})\.json")


class _ArmCounts(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    answered: int = Field(ge=0)
    errors: int = Field(ge=0)
    latencies: dict[int, int]
    compared: int = Field(ge=0)
    agreement: float = Field(ge=0.0)


class _Counts(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    arms: dict[int, _ArmCounts]  # by version


def this_server() -> str:
    """Returns a name that no other server of the repository has."""
    return f"{re.sub(r'[^A-Za-z0-9.-]', '-', socket.gethostname())[:64]}.{os.getpid()}"


def exchanged(repository: Path, model: str, generation: int, server: str, arms: Mapping[int, Arm]) -> dict[int, Arm]:
    """Leaves this server's counts and returns the sum of all others', by version; files of other generations go.

    A file that cannot be read, or contradicts itself, counts nothing. Raises OSError where nothing can be written.
    """
    parts = (model, *_PLACE)
    found: dict[int, Arm] = {}
    with opened_directory(repository, parts, create=True) as directory:
        replace_file(directory, f"{generation}-{server}.json", _content(arms))
        for name in names_in(repository, parts):
            match = _NAME.fullmatch(name)
            if match is None:
                continue
            is_ours, its_generation = match["server"] == server, int(match["generation"])
            if its_generation < generation or (is_ours and its_generation != generation):
                _remove(directory, name)
            elif its_generation == generation and not is_ours:
                for version, arm in _read(directory, name).items():
                    found.setdefault(version, Arm()).add(arm)
    return found


def _content(arms: Mapping[int, Arm]) -> bytes:
    counts = {
        version: _ArmCounts(
            answered=arm.answered,
            errors=arm.errors,
            latencies=dict(arm.latencies),
            compared=arm.compared,
            agreement=arm.agreement,
        )
        for version, arm in arms.items()
    }
    return _Counts(arms=counts).model_dump_json().encode()


def _read(directory: int, name: str) -> dict[int, Arm]:
    try:
        counts = _Counts.model_validate_json(read_file(directory, name, _MOST_BYTES))
    except (OSError, ValidationError):
        return {}
    return {
        version: Arm(arm.answered, arm.errors, Counter(arm.latencies), arm.compared, arm.agreement)
        for version, arm in counts.arms.items()
    }


def _remove(directory: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return  # another server was first
