"""`saccade-export gate` ends in one sentence that names the file or the key, whatever it is given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from saccade.export.cli.program import main
from tests.support.reports import whole_report


def rename_a_variant(directory: Path) -> None:
    report = directory / "report.json"
    document = orjson.loads(report.read_bytes())
    document["variants"][0]["qualify"]["variant"] = "int9"
    report.write_bytes(orjson.dumps(document))


def leave_no_variant(directory: Path) -> None:
    (directory / "report.json").write_text(whole_report().model_copy(update={"variants": ()}).model_dump_json())


def cut_the_report_off(directory: Path) -> None:
    (directory / "report.json").write_text("{")


def cut_the_manifest_off(directory: Path) -> None:
    (directory / "manifest.json").write_text("{")


def put_a_folder_where_a_file_belongs(directory: Path) -> None:
    (directory / "fp32.onnx").mkdir()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (rename_a_variant, "the report's 'int9' is no variant; there are: fp32, fp32-openvino"),
        (leave_no_variant, "report.json holds no variant to judge"),
        (cut_the_report_off, "report.json is not a report of this schema"),
        (cut_the_manifest_off, "manifest.json is not JSON"),
        (put_a_folder_where_a_file_belongs, "fp32.onnx: Is a directory"),
    ],
)
def test_gate_of_a_damaged_report_ends_in_a_sentence(
    damage: Callable[[Path], None],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "report.json").write_text(whole_report().model_dump_json())
    damage(tmp_path)
    monkeypatch.setattr("sys.argv", ["saccade-export", "gate", str(tmp_path / "report.json")])

    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code in (1, 2)
    _, line = capsys.readouterr().err.splitlines()  # the first says what is read
    assert line.startswith("saccade-export: ")
    assert words in line
