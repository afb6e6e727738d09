"""Checks .pt2 archives before they are opened. Parts that would run code are never loaded.

`torch.export.load` unpickles tensors and objects that an archive marks so, loads compiled libraries, evaluates symbolic
sizes as Python text, and resolves operators as attributes of torch. What a plain exported network needs is none of it.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from saccade.export.errors import SourceError

_COMPILED = ("data/aotinductor/", "data/executorch/", "data/mtia/")
_CONFIG_SUFFIX = "_config.json"
_TENSOR_FILES = re.compile(r"(weight|tensor)_\d+")
_OPERATOR = re.compile(r"torch\.ops\.\w+\.\w+(\.\w+)?|_operator\.\w+|torch\.sym_\w+|torch\._sym_\w+|math\.\w+")
_SYMBOL = re.compile(r"Symbol\('\w+'")  # sizes are written as sympy constructor calls around these
_WORDS = re.compile(  # what else torch writes into them
    r"Symbol|positive|nonnegative|integer|real|True|False|Integer|Rational|Float|precision|Add|Mul|Pow|Max|Min|Mod|Abs|"
    r"PythonMod|FloorDiv|CleanDiv|CeilDiv|ModularIndexing|Where|Identity|IntTrueDiv|FloatTrueDiv|TruncToInt|CeilToInt|"
    r"FloorToInt|RoundToInt|ToFloat|PowByNatural|FloatPow|Piecewise|Equality|Unequality|StrictLessThan|LessThan|"
    r"StrictGreaterThan|GreaterThan|And|Or|Not|floor|ceiling|int_oo|oo|[su]\d+"
)
_HOW = "save the network again with torch.export.save, tensors and standard operators only"


def ensure_harmless(path: Path) -> None:
    """Raises SourceError naming what could run code, or why the file is no such archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            _ensure_harmless_members(path.name, archive)
    except OSError as error:
        raise SourceError(f"cannot read weights {path}: {error.strerror or error}; fix `weights`") from error
    except (zipfile.BadZipFile, ValueError) as error:
        raise SourceError(f"{path.name} is not a .pt2 archive, or a damaged one: {error}; {_HOW}") from error


def _ensure_harmless_members(file: str, archive: zipfile.ZipFile) -> None:
    names = archive.namelist()
    if len({name.lower() for name in names}) != len(names):
        raise SourceError(f"{file} holds a member twice, so that readers may disagree about it; {_HOW}")
    members = {name.partition("/")[2]: name for name in names}  # below the archive's root folder
    if not any(member.startswith("models/") for member in members):
        raise SourceError(f"{file} holds no exported program in the format of torch 2.8 and later; {_HOW}")
    for member, name in members.items():
        if member.startswith(_COMPILED):
            raise SourceError(f"{file} holds compiled code ({member}), which would run when it is loaded; {_HOW}")
        if member.startswith("models/"):
            _ensure_plain_program(file, json.loads(archive.read(name)))
        elif member.endswith(_CONFIG_SUFFIX):
            _ensure_plain_tensors(file, json.loads(archive.read(name)))
        elif member.startswith("data/sample_inputs/"):
            _ensure_plain_pickle(file, member, archive.read(name))
        elif member.startswith("data/") and not _TENSOR_FILES.fullmatch(member.rpartition("/")[2]):
            raise SourceError(f"{file} holds {member}, which may be a pickle; {_HOW}")


def _ensure_plain_tensors(file: str, config: Any) -> None:
    for name, payload in config["config"].items():
        if payload["use_pickle"] or not _TENSOR_FILES.fullmatch(payload["path_name"]):
            raise SourceError(f"{file} keeps {name!r} as a pickle, which can run code when it is read; {_HOW}")


def _ensure_plain_pickle(file: str, member: str, content: bytes) -> None:
    """Example inputs are always pickled; torch falls back to unsafe reading where its safe reader refuses."""
    try:
        torch.load(io.BytesIO(content), weights_only=True)
    except Exception as error:  # torch.load raises whatever the damaged pickle provokes
        raise SourceError(f"{file}: {member} is a pickle that torch's safe reader refuses; {_HOW}") from error


def _ensure_plain_program(file: str, program: Any) -> None:
    for key, text in _texts(program):
        if key == "target" and not _OPERATOR.fullmatch(text):
            raise SourceError(f"{file} calls {text!r}, which is no operator of torch; {_HOW}")
        if key == "expr_str" and not _is_plain_expression(text):
            raise SourceError(f"{file} has a size {text!r} that is no arithmetic; {_HOW}")


def _is_plain_expression(text: str) -> bool:
    """Constructor calls of known names: no quotes but around symbols, no attributes, no subscripts."""
    bare = _SYMBOL.sub("Symbol(", text)
    is_arithmetic = re.fullmatch(r"[\w\s()+\-*/%,=<>&|~!.]*", bare) and not re.search(r"[A-Za-z_)]\s*\.", bare)
    return bool(is_arithmetic) and all(_WORDS.fullmatch(word) for word in re.findall(r"[A-Za-z_]\w*", bare))


def _texts(document: Any) -> Iterator[tuple[str, str]]:
    """Every key with its text, however deep."""
    if isinstance(document, dict):
        for key, value in document.items():
            if isinstance(value, str):
                yield key, value
            else:
                yield from _texts(value)
    elif isinstance(document, list):
        for value in document:
            yield from _texts(value)
