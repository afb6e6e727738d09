"""An export into an object store: published, found equal the second time, and served as it is."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner

from saccade.export.cli.program import app
from saccade.service.repository.verify import verify_version
from tests.pipeline.conftest import WriteRecipe
from tests.support.object_store import URL, object_store_server, store_at
from tests.support.server import call_saccade


def run(recipe: Path, work: Path) -> dict[str, str]:
    """The detail of step publish."""
    arguments = [
        "run",
        str(recipe),
        "--variant",
        "fp32",
        "--repository",
        URL,
        "--work",
        str(work),
        "--no-sign",
        "--json",
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    (outcome,) = orjson.loads(result.stdout).values()
    detail: dict[str, str] = next(step for step in outcome["steps"] if step["step"] == "publish")
    return detail


def test_an_export_is_published_once_and_read_by_every_command(write_recipe: WriteRecipe, tmp_path: Path) -> None:
    recipe = write_recipe("classify")
    with object_store_server(tmp_path) as server:
        run(recipe, tmp_path / "work")
        run(recipe, tmp_path / "work")
        keys = [each.key for each in store_at().objects()]
        assert [key for key in keys if key.endswith("/manifest.json")] == ["tiny-classifier/1/manifest.json"]
        assert any(key.startswith(".samples/classify/") for key in keys)

        listed = call_saccade("repository", "list", "--repository", URL, "--json", environment=server.environment)
        assert [row["variant"] for row in orjson.loads(listed.stdout)] == ["fp32"]
        shown = call_saccade(
            "repository", "show", "tiny-classifier", "--repository", URL, environment=server.environment
        )
        assert orjson.loads(shown.stdout)["version"] == 1
        verified = call_saccade("repository", "verify", "--repository", URL, environment=server.environment)
        assert verified.stdout.startswith("tiny-classifier/1: verified")

        (sample,) = [key for key in keys if key.startswith(".samples/classify/000")]
        read = store_at().read(sample, 10**6)
        assert read is not None
        picture = tmp_path / "picture.png"
        picture.write_bytes(read.content)
        answer = call_saccade("predict", "--repository", URL, "--json", str(picture), environment=server.environment)
        assert "prediction" in orjson.loads(answer.stdout), answer.stderr
        (copied,) = tmp_path.glob("cache/saccade/repositories/*/versions/tiny-classifier/1")
        assert verify_version(copied).manifest.version == 1


@pytest.mark.parametrize("command", [["build", "cat"], ["triton", "cat", "1", "--into", "x"]])
def test_commands_that_need_a_directory_say_so(command: list[str]) -> None:
    result = CliRunner().invoke(app, [*command, "--repository", URL])

    assert "needs a repository in a directory" in str(result.exception)
