"""The program around the pipeline. Promises: exit codes and texts of wrong usage, gate and report commands."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from saccade.export.cli.program import app, main
from tests.support.server import ROOT, clean_environment
from tests.support.terminal import lines_of, on_terminal

WriteRecipe = Callable[..., Path]


@pytest.fixture
def version_dir(write_recipe: WriteRecipe, tmp_path: Path) -> Path:
    """A published toy version."""
    arguments = ["--repository", str(tmp_path / "repository"), "--work", str(tmp_path / "work")]
    result = CliRunner().invoke(app, ["run", str(write_recipe(variants=["fp32"])), *arguments])
    assert result.exit_code == 0, result.output
    return tmp_path / "repository" / "tiny-classifier" / "1"


def test_gate_judges_a_published_report_again(version_dir: Path) -> None:
    result = CliRunner().invoke(app, ["gate", str(version_dir / "report.json")])

    assert (result.exit_code, result.stdout) == (0, "fp32 accepted\n")


def test_gate_denies_a_file_that_was_changed_after_measuring(version_dir: Path) -> None:
    with (version_dir / "fp32.onnx").open("ab") as file:
        file.write(b"\0")

    result = CliRunner().invoke(app, ["gate", str(version_dir / "report.json")])

    assert result.exit_code == 1
    assert "file_hash" in result.output


def test_report_renders_again_from_a_version_directory(version_dir: Path, tmp_path: Path) -> None:
    text = CliRunner().invoke(app, ["report", str(version_dir)]).output
    written = CliRunner().invoke(app, ["report", str(version_dir), "--out", str(tmp_path / "again")])

    assert text == (version_dir / "report.md").read_text()
    assert "### fp32: accepted" in text
    assert written.exit_code == 0
    names = [path.name for path in (tmp_path / "again").iterdir()]
    assert {"report.json", "report.md", "report.html", "latency.png"} <= set(names)
    for name in names:
        assert (tmp_path / "again" / name).read_bytes() == (version_dir / name).read_bytes()


def test_one_variant_of_the_recipe_is_made_and_another_word_is_refused(
    write_recipe: WriteRecipe, tmp_path: Path
) -> None:
    recipe = str(write_recipe(variants=["fp32", "int8-cpu"]))
    places = ["--repository", str(tmp_path / "repository"), "--work", str(tmp_path / "work")]

    result = CliRunner().invoke(app, ["run", recipe, "--variant", "fp32", *places])
    refused = CliRunner().invoke(app, ["run", recipe, "--variant", "fp16", *places])

    assert result.exit_code == 0, result.output
    assert "tiny-classifier: left out by --variant: int8-cpu\n" in result.output
    version = tmp_path / "repository" / "tiny-classifier" / "1"
    assert not (version / "int8-cpu.onnx").exists()
    assert "--variant fp32" in (version / "report.md").read_text()
    assert refused.exit_code != 0
    assert "has no variant fp16" in str(refused.exception)


def test_report_prints_the_page_and_the_page_names_the_command(version_dir: Path) -> None:
    page = CliRunner().invoke(app, ["report", str(version_dir), "--format", "html"]).output

    assert page.rstrip("\n") == (version_dir / "report.html").read_text().rstrip("\n")
    assert f"saccade-export run {version_dir.parents[2] / 'classify.yaml'}" in page


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["run", "absent.yaml"], "cannot read absent.yaml"),
        (["gate", "absent.json"], "cannot read absent.json"),
        (["run"], "Missing argument"),
        (["polish"], "No such command"),
    ],
)
def test_wrong_usage_ends_with_code_2(
    arguments: list[str], text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["saccade-export", *arguments])

    with pytest.raises(SystemExit) as stopped:
        main()

    assert stopped.value.code == 2
    assert text in capsys.readouterr().err


def test_unknown_step_is_wrong_usage_and_names_the_steps(
    write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["saccade-export", "step", str(write_recipe()), "polish"])

    with pytest.raises(SystemExit) as stopped:
        main()

    assert stopped.value.code == 2
    assert "precision.int8-cpu" in capsys.readouterr().err


def test_weights_that_do_not_fit_fail_the_wrap_step(write_recipe: WriteRecipe, tmp_path: Path) -> None:
    source = {"kind": "module", "factory": "tiny_networks:TinyClassifier"}
    recipe = write_recipe(source=source, weights="absent.safetensors")
    result = CliRunner().invoke(app, ["run", str(recipe), "--work", str(tmp_path / "work")])

    assert result.exit_code == 1
    assert "train the model or fix `weights`" in result.output


def test_network_that_cannot_be_traced_fails_its_step_with_the_reason(
    write_recipe: WriteRecipe, tmp_path: Path
) -> None:
    source = {"kind": "module", "factory": "tiny_networks:Untraceable"}
    result = CliRunner().invoke(app, ["run", str(write_recipe(source=source)), "--work", str(tmp_path / "work")])

    assert result.exit_code == 1
    assert "nothing is published: step wrap failed: " in result.output
    assert "again: saccade-export step" in result.output


@pytest.mark.parametrize("module", ["run", "sources", "clean"])
def test_commands_say_a_word_before_they_import_what_takes_seconds(module: str) -> None:
    heavy = ["torch", "onnx", "onnxruntime", "scipy", "sklearn", "matplotlib", "timm", "transformers"]
    program = f"import sys, saccade.export.cli.{module}; print([name for name in {heavy} if name in sys.modules])"

    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_a_run_is_read_on_80_columns_and_without_a_terminal(write_recipe: WriteRecipe, tmp_path: Path) -> None:
    recipe = write_recipe(variants=["fp32"])
    places = ["--repository", str(tmp_path / "r"), "--work", str(tmp_path / "w")]
    command = [sys.executable, "-m", "saccade.export", "run", recipe.name, *places]
    path = os.pathsep.join((str(ROOT), str(ROOT / "tests" / "pipeline" / "tiny")))

    code, written = on_terminal(command, tmp_path, PYTHONPATH=path)
    piped = subprocess.run(
        command, cwd=tmp_path, env=clean_environment({"PYTHONPATH": path}), capture_output=True, text=True, check=True
    )

    shown, plain = lines_of(written), piped.stdout.splitlines()
    place = tmp_path / "r" / "tiny-classifier" / "1"
    unjudged = "unjudged (nobody measured its answers: `saccade serve --allow-unjudged true` serves it)"
    verdict = f"tiny-classifier: published as {place} with fp32, {unjudged}; signed by "
    assert code == 0
    assert shown[-1].startswith(verdict)
    assert "\x1b" in written
    steps = {line.split()[0]: line for line in shown if " s  " in line}
    assert next(iter(steps)) == "data"
    assert list(steps)[-1] == "publish"
    assert len(steps) == sum(" s  " in line for line in shown)
    assert max(map(len, steps.values())) <= 80
    assert "again:" not in written
    assert "\x1b" not in piped.stdout
    assert plain[-1].startswith(verdict.replace("published", "unchanged, published before"))
    assert piped.stderr == f"# reading {recipe.name} ...\n"
