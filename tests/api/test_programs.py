"""The `saccade` program against a real server and a real repository: exit codes, tables, JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.support.images import red_of, red_png
from tests.support.ports import free_port
from tests.support.requests import Background
from tests.support.server import ROOT, Server, call_saccade, clean_environment, run_saccade
from tests.support.versions import publish_fake


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("images")
    contents = {"dark.png": red_png(51), "bright.png": red_png(204), "bad.jpg": b"not an image"}
    for name, content in contents.items():
        (root / name).write_bytes(content)
    return {name: root / name for name in contents}


@pytest.fixture
def tampered_repository(tmp_path: Path) -> Path:
    publish_fake(tmp_path, "sound", 1)
    tampered = publish_fake(tmp_path, "tampered", 3)
    (tampered / "model.onnx").write_bytes(b"WEIGHTS")
    return tmp_path


# predict


def test_predict_prints_a_table(server: Server, images: dict[str, Path]) -> None:
    result = run_saccade(
        "predict", server.base_url, "classifier", str(images["dark.png"]), str(images["bright.png"]), "-p", "top_k=2"
    )
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stdout.splitlines() if ".png" in line]
    assert len(lines) == 2
    assert "dark.png" in lines[0]
    assert "0 0.20, 1 0.20" in lines[0]
    assert "0 0.80" in lines[1]


def test_predict_takes_folders_and_a_url_without_its_scheme(server: Server, images: dict[str, Path]) -> None:
    folder = images["dark.png"].parent
    (folder / "._dark.png").write_bytes(b"what another system leaves beside files")

    result = call_saccade("predict", server.base_url.removeprefix("http://"), "classifier", str(folder), "--json")

    answers = json.loads(result.stdout)
    assert [Path(answer["image"]).name for answer in answers] == ["bad.jpg", "bright.png", "dark.png"]
    assert result.returncode == 1  # bad.jpg
    assert [red_of(answer["predictions"][0]) for answer in answers[1:]] == [204, 51]


def test_predict_takes_standard_input(server: Server) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "saccade.service", "predict", server.base_url, "classifier", "-", "--json"],
        input=red_png(77),
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        timeout=60,
        check=True,
    )

    (answer,) = json.loads(done.stdout)
    assert red_of(answer["predictions"][0]) == 77


def test_predict_prints_json_for_machines(server: Server, images: dict[str, Path]) -> None:
    result = call_saccade("predict", server.base_url, "classifier", str(images["dark.png"]), "--json", "--version", "1")
    assert result.returncode == 0, result.stderr
    (answer,) = json.loads(result.stdout)
    assert (answer["image"], answer["version"]) == (str(images["dark.png"]), "1")
    assert red_of(answer["predictions"][0]) == 51
    assert answer["timings_ms"]["total"] > 0


def test_predict_exits_1_when_an_image_is_refused_and_shows_the_others(server: Server, images: dict[str, Path]) -> None:
    paths = [str(images[name]) for name in ("dark.png", "bad.jpg", "bright.png")]
    result = call_saccade("predict", server.base_url, "detector", *paths)
    assert result.returncode == 1
    assert "422" in result.stdout
    assert "not a JPEG" in result.stdout
    assert "nothing found" in result.stdout
    assert "0 0.80" in result.stdout


@pytest.mark.parametrize("model", ["nobody", "[/red]", "[bold]nobody"])
def test_predict_shows_the_problem_of_an_unknown_model(server: Server, images: dict[str, Path], model: str) -> None:
    result = call_saccade("predict", server.base_url, model, str(images["dark.png"]))
    assert result.returncode == 1
    assert "404" in result.stdout
    assert model.replace("/", "%2f") in result.stdout  # an encoded slash is part of the name


def test_predict_exits_1_when_nobody_listens(images: dict[str, Path]) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    result = call_saccade("predict", url, "classifier", str(images["dark.png"]))
    assert result.returncode == 1
    assert "saccade serve" in result.stderr
    assert "Traceback" not in result.stderr


class _OtherServer(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_predict_exits_1_when_another_kind_of_server_answers(images: dict[str, Path]) -> None:
    with HTTPServer(("127.0.0.1", 0), _OtherServer) as other, Background() as background:
        background.start(other.handle_request)
        url = f"http://127.0.0.1:{other.server_port}"
        result = call_saccade("predict", url, "classifier", str(images["dark.png"]))
    assert result.returncode == 1
    assert "is it a saccade server?" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict"],
        ["predict", "http://127.0.0.1:1", "classifier"],
        ["predict", "http://127.0.0.1:1", "classifier", "no-such-file.jpg"],
        ["predict", "http://127.0.0.1:1", "classifier", "pyproject.toml", "-p", "top_k"],
        ["predict", "http://127.0.0.1:1", "classifier", "pyproject.toml", "--version", "1", "--label", "stable"],
        ["predict", "http://127.0.0.1:port", "classifier", "pyproject.toml"],
        ["predict", "http://127.0.0.1:1", "classifier", "k8s"],
        ["predict", "--repository", "k8s", "-"],
        ["nonsense"],
        ["serve", "--colour", "red"],
    ],
)
def test_wrong_usage_exits_2(arguments: list[str]) -> None:
    result = call_saccade(*arguments)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


# repository


def test_repository_list_shows_every_version(repository: Path) -> None:
    result = call_saccade("repository", "list", "--repository", str(repository), "--json")
    assert result.returncode == 0
    rows = json.loads(result.stdout)
    assert [(row["model"], row["version"]) for row in rows] == [
        ("classifier", 1),
        ("classifier", 2),
        ("detector", 1),
        ("instances", 1),
        ("segmenter", 1),
    ]
    assert {row["gate"] for row in rows} == {"passed"}
    table = call_saccade("repository", "list", environment={"SACCADE_REPOSITORY": str(repository)})
    assert table.returncode == 0
    assert "top1 0.9000" in table.stdout


def test_repository_list_survives_an_unreadable_manifest(tmp_path: Path) -> None:
    version = publish_fake(tmp_path, "broken", 1)
    (version / "manifest.json").write_text("{[/red]")
    result = call_saccade("repository", "list", "--repository", str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert "unreadable" in result.stdout


def test_repository_show_prints_a_manifest(repository: Path) -> None:
    newest = call_saccade("repository", "show", "classifier", "--repository", str(repository))
    first = call_saccade("repository", "show", "classifier", "1", "--repository", str(repository))
    assert (newest.returncode, first.returncode) == (0, 0)
    assert json.loads(newest.stdout)["version"] == 2
    assert json.loads(first.stdout)["version"] == 1


def test_repository_show_of_an_unknown_version_names_those_that_exist(repository: Path) -> None:
    result = call_saccade("repository", "show", "classifier", "9", "--repository", str(repository))
    assert result.returncode == 1
    assert "classifier/2" in result.stderr


def test_repository_verify_of_a_sound_repository_exits_0(repository: Path) -> None:
    result = call_saccade("repository", "verify", "--repository", str(repository))
    assert result.returncode == 0
    assert result.stdout.count("verified") == 5


def test_repository_verify_of_a_tampered_file_exits_1(tampered_repository: Path) -> None:
    result = run_saccade("repository", "verify", "--repository", str(tampered_repository), "--json")
    assert result.returncode == 1
    sound, tampered = json.loads(result.stdout)
    assert sound["reason"] == ""
    assert "changed after its gate" in tampered["reason"]


def test_a_missing_repository_exits_1(tmp_path: Path) -> None:
    result = call_saccade("repository", "list", "--repository", str(tmp_path / "nowhere"))
    assert result.returncode == 1
    assert "SACCADE_REPOSITORY" in result.stderr


# doctor and settings


def test_doctor_reports_on_this_machine(repository: Path) -> None:
    environment = {"SACCADE_REPOSITORY": str(repository), "SACCADE_PORT": str(free_port())}
    result = run_saccade("doctor", "--json", environment=environment)
    assert result.returncode == 0, result.stdout
    findings = {finding["what"]: finding for finding in json.loads(result.stdout)}
    assert {"settings", "python", "onnxruntime", "shared memory", "port", "repository"} <= set(findings)
    assert "classifier/2" in findings["repository"]["detail"]


def test_doctor_exits_1_when_the_port_is_taken(server: Server, repository: Path) -> None:
    environment = {"SACCADE_REPOSITORY": str(repository), "SACCADE_PORT": str(server.port)}
    result = call_saccade("doctor", environment=environment)
    assert result.returncode == 1
    assert "SACCADE_PORT" in result.stdout


def serve(*arguments: str, **environment: str) -> tuple[int, str]:
    """A server that refuses to start; in a process of its own, in case it does start."""
    result = run_saccade("serve", "--port", "0", *arguments, environment=environment)
    assert "Traceback" not in result.stderr
    return result.returncode, result.stderr


def test_an_unknown_setting_refuses_to_start_and_is_named() -> None:
    code, text = serve(SACCADE_TYPO="1")
    assert code == 2
    assert "SACCADE_TYPO" in text
    assert "SACCADE_SLOTS" in text


def test_a_bad_value_refuses_to_start_and_is_named() -> None:
    code, text = serve(SACCADE_SLOTS="many", SACCADE_DEVICE="gpu")
    assert code == 2
    assert "SACCADE_SLOTS" in text
    assert "SACCADE_DEVICE" in text


def test_a_port_that_is_taken_refuses_to_start(server: Server, repository: Path) -> None:
    result = run_saccade("serve", "--repository", str(repository), "--port", str(server.port))
    assert result.returncode == 2
    assert "SACCADE_PORT" in result.stderr


def test_a_missing_repository_refuses_to_start(tmp_path: Path) -> None:
    code, text = serve("--repository", str(tmp_path / "nowhere"))
    assert code == 2
    assert "SACCADE_REPOSITORY" in text
