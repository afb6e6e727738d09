"""Documents and docstrings name only files, modules, tests and targets that exist; generated parts are current."""

from __future__ import annotations

import ast
import functools
import re
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from tests.support.settings_table import DOCUMENT, with_table

ROOT = Path(__file__).resolve().parents[2]
TOP = ("service", "models", "export", "tests", "k8s", ".ci")
DOCUMENTS = [
    path
    for pattern in ("*.md", "*/README.md", "*/DECISIONS.md", "*/*/README.md", "*/*/*/README.md")
    for path in sorted(ROOT.glob(pattern))
    if path.relative_to(ROOT).parts[0] in (*TOP, path.name)
]
SOURCES = sorted(
    path for package in ("service", "models", "export", "tests") for path in (ROOT / package).rglob("*.py")
)
PACKAGE_MAPS = [path for path in SOURCES if path.name == "__init__.py" and path.relative_to(ROOT).parts[0] != "tests"]
README_BYTES = 10 * 1024  # what a stranger reads before deciding
_CODE = re.compile(r"`([^`\n]+)`|\]\(([^)\s]+)\)")  # `code` and [text](target)
_PATH = re.compile(r"\.{0,2}[\w.{},*-]*(?:/[\w.{},*-]+)+/?|[\w-]+\.py|[A-Z]+\.md")
_MODULE = re.compile(r"(?<![\w/.-])(?:[\w-]+/)*(?:\w+|\{[\w,]+\})\.py\b")
_DOCUMENT = re.compile(r"(?<![\w/.-])(?:[\w-]+/)*[A-Z]+\.md\b")
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_TARGET = re.compile(r"^(?:\$ )?make +([a-z][\w-]*(?: +[a-z][\w-]*)*)|\bmake ([a-z][\w-]*) &&", re.MULTILINE)
# Words of plans that this repository does not hold: a reader cannot look them up.
_NOT_HERE = re.compile(r"tables? A and B|seed tables?|of the seeds|\bAPI\.md\b")
_LINK = re.compile(r"\]\(([^)\s#]*)#?([^)\s]*)\)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_TEST = re.compile(r"(tests/[\w/]+\.py)::(test_\w+)")
_RUN_MODULE = re.compile(r"python -m ((?:tests|saccade)[\w.]*)")


def expanded(token: str) -> Iterator[str]:
    """`a/{b,c}.py` is a/b.py and a/c.py."""
    parts = re.split(r"\{([^{}]*)\}", token)
    choices = [part.split(",") if index % 2 else [part] for index, part in enumerate(parts)]
    yield from ("".join(chosen) for chosen in product(*choices))


def names_in(text: str) -> set[str]:
    """Backticked or linked paths that claim to lie in this project."""
    tokens = {code or target for code, target in _CODE.findall(text)}
    return {token for token in tokens if _PATH.fullmatch(token) and not token.startswith(("/", "http"))}


def exists(name: str, *bases: Path) -> bool:
    """As a path from one of the folders; globs must match something."""
    clean = name.removeprefix("./").rstrip("/")
    return any(
        next(iter(base.glob(clean)), None) is not None if "*" in clean else (base / clean).exists() for base in bases
    )


def is_ours(name: str) -> bool:
    return name.removeprefix("./").split("/")[0] in TOP or name.endswith((".py", ".md"))


def missing(names: set[str], *bases: Path) -> list[str]:
    return sorted(name for token in names for name in expanded(token) if not exists(name, *bases))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_document_names_only_files_that_exist(path: Path) -> None:
    names = {name for name in names_in(path.read_text("utf-8")) if is_ours(name)}

    assert missing(names, ROOT, path.parent) == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_headings_that_exist(path: Path) -> None:
    links = [(target, anchor) for target, anchor in _LINK.findall(path.read_text("utf-8")) if anchor]
    local = [(path.parent / target if target else path, anchor) for target, anchor in links if "://" not in target]

    assert [anchor for file, anchor in local if anchor not in anchors_of(file.read_text("utf-8"))] == []


@pytest.mark.parametrize("path", PACKAGE_MAPS, ids=lambda path: str(path.relative_to(ROOT)))
def test_package_map_names_only_files_that_exist(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    names = names_in(docstring) | set(_MODULE.findall(docstring))

    # a map may speak from the package, from the project, or (on a line about a folder) from that folder
    folders = [folder for folder in path.parent.iterdir() if folder.is_dir()]
    assert missing(names, path.parent, ROOT, *folders) == []


def commands_in(text: str) -> str:
    """The lines of a text that are code: fenced and indented blocks, and every `span`."""
    indented = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    return "\n".join([*_FENCE.findall(text), *indented, *(code for code, _ in _CODE.findall(text))])


def make_targets_in(text: str) -> set[str]:
    """Targets that the code in a text asks `make` for."""
    found = [several or one for several, one in _TARGET.findall(commands_in(text))]
    return {target for targets in found for target in targets.split()}


def anchors_of(document: str) -> set[str]:
    """As GitHub makes them: lower case, without punctuation, hyphens for spaces."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in _HEADING.findall(document)}


@functools.cache
def docstring_of(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""


def texts() -> dict[str, str]:
    """Every document and every module docstring, by its path."""
    documents = {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in DOCUMENTS}
    return documents | {str(path.relative_to(ROOT)): docstring_of(path) for path in SOURCES}


def test_module_docstrings_name_only_files_that_exist() -> None:
    """A docstring may speak from any folder, so the end of a path is what must be there."""
    listed = [path for folder in (*TOP, "saccade") for path in (ROOT / folder).rglob("*")]
    here = {f"/{path.relative_to(ROOT)}" for path in [*listed, *ROOT.glob("*.*"), ROOT / "Makefile"]}
    unknown = {}
    for path in SOURCES:
        docstring = docstring_of(path)
        names = {name for name in names_in(docstring) if is_ours(name)}
        names |= set(_MODULE.findall(docstring)) | set(_DOCUMENT.findall(docstring))
        said = {part for name in names if "*" not in name for part in expanded(name.removeprefix("./").rstrip("/"))}
        absent = sorted(name for name in said if not any(known.endswith(f"/{name}") for known in here))
        if absent:
            unknown[str(path.relative_to(ROOT))] = absent

    assert unknown == {}


def test_make_targets_that_a_text_names_exist() -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))

    assert {name: absent for name, text in texts().items() if (absent := make_targets_in(text) - targets)} == {}


def test_modules_that_a_text_runs_exist() -> None:
    unknown = {}
    for name, text in texts().items():
        paths = [ROOT / module.rstrip(".").replace(".", "/") for module in _RUN_MODULE.findall(text)]
        absent = [path for path in paths if not (path.with_suffix(".py").exists() or (path / "__main__.py").exists())]
        if absent:
            unknown[name] = [str(path.relative_to(ROOT)) for path in absent]

    assert unknown == {}


def test_tests_that_stand_behind_a_guarantee_exist() -> None:
    named = [(name, test) for text in texts().values() for name, test in _TEST.findall(text)]
    absent = [
        f"{name}::{test}"
        for name, test in named
        if not (ROOT / name).exists() or f"def {test}(" not in (ROOT / name).read_text("utf-8")
    ]

    assert named != []
    assert absent == []


def test_no_text_speaks_of_what_is_not_in_the_repository() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")

    assert {
        name: found for name, text in (texts() | {"Makefile": makefile}).items() if (found := _NOT_HERE.findall(text))
    } == {}


def test_readme_is_short_enough_to_be_read() -> None:
    assert (ROOT / "README.md").stat().st_size <= README_BYTES


def test_nothing_is_told_twice() -> None:
    """A line of the change log replaces the one before it about the same thing; a row of figures too."""
    lines = (ROOT / "CHANGELOG.md").read_text("utf-8").splitlines()
    rows = (ROOT / "tests" / "load" / "README.md").read_text("utf-8").splitlines()
    beginnings = [line[:70] for line in lines if line.startswith("- ")]
    figures = [row[:35] for row in rows if re.search(r"\| `[^|]*` \|$", row)]

    assert beginnings
    assert figures
    assert [text for text, count in Counter([*beginnings, *figures]).items() if count > 1] == []


@pytest.mark.parametrize("package", ["service", "export"])
def test_decisions_are_numbered_without_gaps(package: str) -> None:
    text = (ROOT / package / "DECISIONS.md").read_text("utf-8")
    numbers = [int(number) for number in re.findall(r"^## (\d+)\. ", text, re.MULTILINE)]

    assert numbers == list(range(1, len(numbers) + 1))


def test_settings_table_is_what_the_code_says() -> None:
    """`make docs` writes it."""
    document = DOCUMENT.read_text("utf-8")

    assert document == with_table(document)


def test_wrong_commands_would_be_found() -> None:
    text = "make sure of it\n\n```\nmake check fix   # both\n$ make docs\n```\n`make bench GPU=1`, `make`\n"

    assert make_targets_in(text) == {"check", "fix", "docs", "bench"}


def test_server_map_names_every_part_of_the_server() -> None:
    docstring = ast.get_docstring(ast.parse((ROOT / "service/__init__.py").read_text("utf-8"))) or ""
    folders = [item.name for item in (ROOT / "service").iterdir() if (item / "__init__.py").exists()]

    assert [name for name in folders if f"{name}/" not in docstring] == []


def test_missing_files_would_be_found() -> None:
    text = "see `service/{core,absent}.py`, `service/vision/`, [map](service/nowhere.md), `/v1/models`, `a b/c`"
    names = names_in(text)

    assert names == {"service/{core,absent}.py", "service/vision/", "service/nowhere.md"}
    assert missing(names, ROOT) == ["service/absent.py", "service/nowhere.md"]
