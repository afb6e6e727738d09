"""The `saccade` program: exit codes, what it prints, and what it refuses."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from saccade.models.contract.manifest import GateCheck, GateDecision, MeasuredDevice
from saccade.service import __version__
from saccade.service.cli import doctor
from saccade.service.cli.predict_text import summary_of
from saccade.service.settings import Settings
from tests.support.images import red_png
from tests.support.program_runs import exit_code_of, run
from tests.support.server import ROOT
from tests.support.signing import KEY_ID, signed, write_public_key
from tests.support.terminal import lines_of, on_terminal
from tests.support.versions import manifest_for, publish, with_variants


def test_version_is_the_packages_own() -> None:
    assert __version__ in run("--version").output


def test_repository_list_shows_measured_figures(repository: Path) -> None:
    rows = orjson.loads(run("repository", "list", "--repository", str(repository), "--json").output)

    assert [row["version"] for row in rows] == [1, 2]
    assert rows[0]["metric"] == "top1 0.9000"
    assert rows[0]["gate"] == "passed"


def test_repository_list_names_what_cannot_be_read(repository: Path) -> None:
    (repository / "digits" / "3").mkdir()

    rows = orjson.loads(run("repository", "list", "--repository", str(repository), "--json").output)

    assert rows[2]["gate"].startswith("unreadable: cannot read")


def test_repository_show_prints_the_newest_manifest(repository: Path) -> None:
    shown = orjson.loads(run("repository", "show", "digits", "--repository", str(repository)).output)

    assert shown["version"] == 2


def test_repository_says_what_a_pending_variant_waits_for(repository: Path) -> None:
    waits = GateCheck(name="device_latency", passed=False, pending=True, value=None, limit=None, detail="needs a GPU")
    served = manifest_for("waiting", 1)
    pending = served.variants[0].model_copy(
        update={"name": "int8-trt", "target": "trt", "gate": GateDecision(accepted=False, checks=(waits,))}
    )
    publish(repository, served.model_copy(update={"variants": (*served.variants, pending)}))

    rows = orjson.loads(run("repository", "list", "--repository", str(repository), "--json").output)
    shown = orjson.loads(run("repository", "show", "waiting", "--repository", str(repository)).output)

    gates = {row["variant"]: row["gate"] for row in rows if row["model"] == "waiting"}
    assert gates == {"fp32": "passed", "int8-trt": "pending: waits for a device"}
    assert shown["pending"] == {"int8-trt": ["device_latency"]}


def test_repository_list_is_read_on_80_columns(tmp_path: Path) -> None:
    long = with_variants(
        manifest_for("a-model-of-sixty-letters-" + "x" * 38, 12),
        fp32=(0.9, 1000.0),
        int8_trt_sparse24=(0.89, 123456.7),
    )
    device = MeasuredDevice(kind="cpu", name="A Processor(R) With A Long Name 8481C @ 2.10GHz", threads=16)
    waits = GateCheck(name="device_latency", passed=False, pending=True, value=None, limit=None, detail="needs a GPU")
    pending = {"measured_on": device, "gate": GateDecision(accepted=False, checks=(waits,))}
    variants = (long.variants[0], long.variants[1].model_copy(update=pending))
    publish(tmp_path, long.model_copy(update={"variants": variants}))
    program = [sys.executable, "-m", "saccade.service", "repository", "list", "--repository", str(tmp_path)]

    code, written = on_terminal(program, ROOT)

    lines = lines_of(written)
    assert code == 0
    assert max(map(len, lines)) <= 80
    assert lines[0] == f"{long.model}/12"
    assert [line.split() for line in lines[2:4]] == [
        ["fp32", "passed", "top1", "0.9000", "0.8800", "-", "0.9200", "1000.0"],
        ["int8-trt-sparse24", "pending", "top1", "0.8900", "0.8800", "-", "0.9200", "123456.7"],
    ]
    assert "int8-trt-sparse24 waits for a device" in " ".join(" ".join(lines).split())


def test_serve_refuses_a_trusted_key_that_cannot_be_read(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--repository", str(repository), "--trusted-keys", str(repository / "absent.pem"))

    assert exit_code_of(monkeypatch, "serve", *arguments) == 2
    assert "SACCADE_TRUSTED_KEYS: cannot read" in capsys.readouterr().err


def test_list_and_show_name_the_key_that_a_version_claims(repository: Path) -> None:
    signed(repository / "digits" / "2")

    rows = orjson.loads(run("repository", "list", "--repository", str(repository), "--json").output)
    shown = [
        orjson.loads(run("repository", "show", "digits", version, "--repository", str(repository)).output)
        for version in ("1", "2")
    ]

    assert [row["key_id"] for row in rows] == ["", KEY_ID]
    assert [document.get("signature_key_id") for document in shown] == [None, KEY_ID]


def test_unknown_version_is_a_failure_and_names_those_that_exist(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code_of(monkeypatch, "repository", "show", "digits", "9", "--repository", str(repository)) == 1
    assert "there are: digits/1, digits/2" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [("fly",), ("repository", "show"), ("serve", "--prot", "1"), ("predict",)])
def test_wrong_usage_exits_2(monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]) -> None:
    assert exit_code_of(monkeypatch, *arguments) == 2


@pytest.mark.parametrize("name", ["SACCADE_PROT", "SACCADE_SLOT"])
def test_serve_refuses_an_unknown_setting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.setenv(name, "1")

    assert exit_code_of(monkeypatch, "serve") == 2
    assert f"unknown setting {name}" in capsys.readouterr().err


def test_serve_refuses_a_bad_option_by_the_settings_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code_of(monkeypatch, "serve", "--slots", "none") == 2
    assert "SACCADE_SLOTS: " in capsys.readouterr().err


def test_serve_refuses_a_repository_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert exit_code_of(monkeypatch, "serve", "--repository", str(tmp_path / "absent")) == 2
    assert "SACCADE_REPOSITORY: " in capsys.readouterr().err


@pytest.mark.parametrize("command", [("serve",), ("predict", "--model", "digits")])
def test_missing_onnxruntime_is_one_sentence_that_names_the_extra(
    repository: Path, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as where it is not installed
    image = repository / "image.png"
    image.write_bytes(red_png(7))
    images = [] if command == ("serve",) else [str(image)]

    assert exit_code_of(monkeypatch, *command, "--repository", str(repository), *images) == 1

    told = capsys.readouterr().err
    assert told.startswith("saccade: ONNX Runtime is not installed: pip install 'saccade-serving[cpu]'")
    assert told.count("\n") == 1


def test_every_setting_is_an_option_of_serve() -> None:
    help_text = run("serve", "--help").output

    options = [f"--{name.replace('_', '-')}" for name in Settings.model_fields]
    assert [option for option in options if option not in help_text] == []
    assert "With `--log-level debug` there is an access log." in " ".join(help_text.split())


@pytest.mark.parametrize(
    ("prediction", "line"),
    [
        ({"classes": [{"label": "7", "score": 0.98}, {"label": "1", "score": 0.01}]}, "7 0.98, 1 0.01"),
        ({"detections": [{"label": "7", "score": 0.9, "box": [1.2, 2, 3, 4.6]}]}, "7 0.90 [1, 2, 3, 5]"),
        ({"detections": []}, "nothing found"),
        ({"segments": [{"label": "7", "area": 12}]}, "7 12 px"),
        ({"segments": []}, "background only"),
        (
            {
                "segments": [],
                "trust": {"score": 1.234, "threshold": 1.0, "familiar": False},
                "quality": {"score": 0.5, "reasons": ["blurred: a", "small: b"]},
                "explanation": {"method": "class activation"},
                "warning": "lines are missing",
            },
            "background only; UNFAMILIAR (1.23 of 1); quality 0.50, blurred: a, small: b; "
            "explained by class activation, whose map --json has (lines are missing)",
        ),
    ],
)
def test_prediction_is_summed_up_in_one_line(prediction: dict[str, Any], line: str) -> None:
    assert summary_of(prediction) == line


def test_predict_without_a_server_fails_with_what_to_do(tmp_path: Path) -> None:
    image = tmp_path / "image.jpg"
    image.write_bytes(b"jpeg")

    result = run("predict", "http://127.0.0.1:9", "digits", str(image))

    assert result.exit_code == 1
    assert "cannot reach" in result.output


def test_doctor_reports_an_unknown_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SACCADE_PROT", "1")

    result = run("doctor", "--json")

    assert result.exit_code == 1
    (finding,) = orjson.loads(result.output)
    assert finding["is_ok"] is False
    assert "unknown setting SACCADE_PROT" in finding["detail"]


def test_doctor_names_every_check(monkeypatch: pytest.MonkeyPatch, repository: Path) -> None:
    monkeypatch.setenv("SACCADE_REPOSITORY", str(repository))
    monkeypatch.setenv("SACCADE_PORT", "0")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(repository / ".none"))

    findings = {item["what"]: item for item in orjson.loads(run("doctor", "--json").output)}

    assert findings["settings"]["is_ok"] is True
    assert "digits/1, digits/2" in findings["repository"]["detail"]
    assert findings["port"]["is_ok"] is True
    assert findings["signatures"]["is_ok"] is None
    assert {"python", "cores", "cpu", "onnxruntime", "openvino", "tensorrt"} <= set(findings)
    assert {"shared memory", "open files"} <= set(findings)


@pytest.mark.parametrize(
    ("capabilities", "is_ok", "detail"),
    [
        (["FP32", "BF16"], True, "with bfloat16"),
        (["FP32"], None, "fp32 and int8, no bfloat16 on this processor: bf16-cpu does not serve here"),
    ],
)
def test_doctor_asks_openvino_what_the_processor_computes(
    monkeypatch: pytest.MonkeyPatch, capabilities: list[str], is_ok: bool | None, detail: str
) -> None:
    core = SimpleNamespace(get_property=lambda device, name: capabilities)
    monkeypatch.setattr(doctor, "import_openvino", lambda: SimpleNamespace(Core=lambda: core))
    monkeypatch.setattr(doctor, "_version_of", lambda name: "2026.4")

    found = doctor._openvino()

    assert (found.is_ok, found.detail) == (is_ok, f"2026.4 {detail}")


def test_doctor_names_the_extra_where_openvino_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version_of", lambda name: "")

    assert doctor._openvino().detail.endswith("install the openvino extra)")


@pytest.mark.parametrize(
    ("name", "is_ok", "detail"), [("publisher.pem", True, KEY_ID), ("absent.pem", False, "absent")]
)
def test_doctor_reads_the_trusted_keys(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, is_ok: bool, detail: str
) -> None:
    write_public_key(tmp_path / "publisher.pem")
    monkeypatch.setenv("SACCADE_TRUSTED_KEYS", str(tmp_path / name))
    monkeypatch.setenv("SACCADE_REQUIRE_SIGNATURE", "true")

    findings = {item["what"]: item for item in orjson.loads(run("doctor", "--json").output)}

    assert findings["signatures"]["is_ok"] is is_ok
    assert detail in findings["signatures"]["detail"]
