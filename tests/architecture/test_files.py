"""Files keep the house rules: short, opened by a sentence, no swallowed failures, no paths of one machine."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

from saccade.service import __version__

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("models", "service", "export")
MAX_LINES = 400
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
ASYNC_SOURCES = [path for path in SOURCES if "async def" in path.read_text("utf-8")]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def text_files() -> dict[str, str]:
    """Everything in the project that is text: what git tracks or would, or without git what lies in its folders."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    names = listed.stdout.splitlines()
    if listed.returncode != 0:
        folders = (*PACKAGES, "tests", "k8s", ".ci")
        found = [*ROOT.glob("*"), *(path for folder in folders for path in (ROOT / folder).rglob("*"))]
        names = [name_of(path) for path in found if path.is_file()]
    texts = {}
    for name in names:
        try:
            texts[name] = (ROOT / name).read_text("utf-8")
        except (
            UnicodeDecodeError,
            FileNotFoundError,
            IsADirectoryError,
        ):  # binary, just removed, or a link to a folder
            continue
    return texts


def test_no_source_file_is_too_long() -> None:
    lengths = {name_of(path): len(path.read_text("utf-8").splitlines()) for path in SOURCES}

    assert {name: count for name, count in lengths.items() if count > MAX_LINES} == {}


def test_every_source_file_opens_with_a_sentence() -> None:
    silent = [
        name_of(path)
        for path in SOURCES
        if path.read_text("utf-8").strip() and not ast.get_docstring(ast.parse(path.read_text("utf-8")))
    ]
    assert silent == []


def test_no_file_is_named_for_having_no_subject() -> None:
    empty_names = {"utils", "util", "helpers", "helper", "common", "misc", "manager"}

    assert [name_of(path) for path in SOURCES if path.stem in empty_names] == []


def _swallowing(tree: ast.Module) -> list[int]:
    """Lines of handlers that catch broadly and do nothing."""
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            names = {item.id for item in ast.walk(node.type) if isinstance(item, ast.Name)} if node.type else set()
            is_broad = node.type is None or names & {"Exception", "BaseException"}
            does_nothing = all(isinstance(item, ast.Pass | ast.Continue | ast.Break) for item in node.body)
            if is_broad and does_nothing:
                lines.append(node.lineno)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            broad = {item.id for item in node.args if isinstance(item, ast.Name)} & {"Exception", "BaseException"}
            if name == "suppress" and broad:
                lines.append(node.lineno)
    return lines


def test_no_failure_is_swallowed() -> None:
    found = {name_of(path): _swallowing(ast.parse(path.read_text("utf-8"))) for path in SOURCES}

    assert {name: lines for name, lines in found.items() if lines} == {}


def test_swallowed_failures_would_be_found() -> None:
    broad = "try:\n    pass\nexcept (ValueError, Exception):\n    pass\n"
    bare = "while True:\n    try:\n        pass\n    except:\n        continue\n"
    narrow = "try:\n    pass\nexcept ValueError:\n    pass\n"

    assert [_swallowing(ast.parse(text)) for text in (broad, bare, narrow)] == [[3], [4], []]
    assert _swallowing(ast.parse("with contextlib.suppress(Exception):\n    pass\n")) == [1]


@pytest.mark.parametrize("path", ASYNC_SOURCES, ids=name_of)
def test_nothing_in_async_code_blocks_the_loop(path: Path) -> None:
    blocking = {"sleep": "time", "run": "subprocess", "read_bytes": None, "read_text": None, "open": None}
    found = []
    for function in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(function, ast.AsyncFunctionDef):
            continue
        for call in ast.walk(function):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in blocking:
                owner = call.func.value.id if isinstance(call.func.value, ast.Name) else ""
                module = blocking[call.func.attr]
                if owner == module or (module is None and owner not in ("ControlConnection",)):
                    found.append(f"line {call.lineno}: {owner}.{call.func.attr}")
            elif isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "open":
                found.append(f"line {call.lineno}: open")
    assert found == []


def test_every_silenced_warning_names_its_code_and_reason() -> None:
    silenced = re.compile(r"# (?:noqa|type: ignore)(?P<code>: ?[A-Z0-9, ]+|\[[a-z-]+(?:, ?[a-z-]+)*\])?(?P<reason>.*)")
    found = []
    for path in SOURCES:
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            match = silenced.search(line)
            if match and not (match["code"] and len(match["reason"].strip(" #")) > 3):
                found.append(f"{name_of(path)}:{number}")
    assert found == []


# Built from pieces, so that this file does not contain what it looks for.
MACHINE_PATHS = re.compile(
    "|".join(
        [r"/wor" + r"k/(?:main|shared)\b", r'(?<![\w"}])/roo' + r"t/", r"/hom" + r"e/[a-z]", r"/User" + r"s/[a-z]"]
    )
)
PRIVATE_HOSTS = re.compile(
    r"https?://(?:[a-z0-9.-]*(?:artifactory|nexus|pypi-?(?:proxy|mirror)|devpi|registry\.local)[a-z0-9.-]*"
    r"|10\.\d+\.\d+\.\d+|192\.168\.\d+\.\d+)",
    re.IGNORECASE,
)
INDEX_OPTION = re.compile(r"^\s*--(?:extra-)?index-url|^\s*--trusted-host", re.MULTILINE)


def test_text_names_no_path_of_one_machine() -> None:
    found = {name: MACHINE_PATHS.findall(text) for name, text in text_files().items() if MACHINE_PATHS.search(text)}

    assert found == {}


def test_text_names_no_private_registry() -> None:
    texts = text_files()
    hosts = {name: PRIVATE_HOSTS.findall(text) for name, text in texts.items() if PRIVATE_HOSTS.search(text)}
    options = [
        f"{name}: {line.strip()}"
        for name, text in texts.items()
        for line in text.splitlines()
        if INDEX_OPTION.match(line)
    ]

    assert hosts == {}
    assert options == []


def test_change_log_knows_this_version() -> None:
    change_log = (ROOT / "CHANGELOG.md").read_text("utf-8")

    assert re.search(rf"^## {re.escape(__version__)}\b", change_log, re.MULTILINE)
