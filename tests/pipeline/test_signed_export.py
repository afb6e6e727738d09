"""An export publishes signed versions: one rename, no manifest entry, the equal version signed later."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner

from saccade.export.cli.program import app
from saccade.export.publish.signing import generate_keys
from saccade.models.contract.manifest import read_manifest
from saccade.service.repository.account_key import account_public_keys
from saccade.service.repository.signature import SIGNATURE_NAME
from saccade.service.repository.trusted_keys import signature_policy
from saccade.service.repository.verify import verify_version

WriteRecipe = Callable[..., Path]


@pytest.mark.parametrize("is_signed_at_first", [True, False])
def test_version_of_a_signed_export_is_what_a_server_requires(
    write_recipe: WriteRecipe, tmp_path: Path, is_signed_at_first: bool
) -> None:
    private, public = generate_keys(tmp_path / "keys", None)
    recipe = write_recipe(variants=["fp32"])
    arguments = ["run", str(recipe), "--repository", str(tmp_path / "repository"), "--work", str(tmp_path / "work")]
    if not is_signed_at_first:
        result = CliRunner().invoke(app, [*arguments, "--no-sign"])
        assert result.exit_code == 0, result.output
        assert not (tmp_path / "repository" / "tiny-classifier" / "1" / SIGNATURE_NAME).exists()

    result = CliRunner().invoke(app, arguments, env={"SACCADE_SIGN_KEY_FILE": str(private)})

    assert result.exit_code == 0, result.output
    model_dir = tmp_path / "repository" / "tiny-classifier"
    assert [path.name for path in model_dir.iterdir()] == ["1"]
    verified = verify_version(model_dir / "1", signature_policy([public], is_required=True))
    assert f"{verified.signed_by}.pub.pem" == public.name
    assert SIGNATURE_NAME not in {entry.path for entry in read_manifest(model_dir / "1")[0].files}


def test_export_without_a_key_is_signed_by_the_accounts_own_which_its_servers_trust(
    write_recipe: WriteRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    places = ["--repository", str(tmp_path / "repository"), "--work", str(tmp_path / "work")]

    first = CliRunner().invoke(app, ["run", str(write_recipe(variants=["fp32"])), *places])
    again = CliRunner().invoke(app, ["run", str(write_recipe(variants=["fp32"])), *places, "--json"])

    assert (first.exit_code, again.exit_code) == (0, 0), first.output
    verified = verify_version(
        tmp_path / "repository" / "tiny-classifier" / "1", signature_policy([], is_required=False)
    )
    (public,) = account_public_keys()
    assert public.name == f"{verified.signed_by}.pub.pem"
    (outcome,) = orjson.loads(again.stdout).values()
    assert outcome["steps"][-1]["detail"]["signed_by"] == verified.signed_by


def test_export_that_can_keep_no_key_is_unsigned_and_says_so(
    write_recipe: WriteRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text("a file, where a folder would have to be")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    places = ["--repository", str(tmp_path / "repository"), "--work", str(tmp_path / "work")]

    result = CliRunner().invoke(app, ["run", str(write_recipe(variants=["fp32"])), *places])

    assert result.exit_code == 0, result.output
    assert "versions will be unsigned: cannot keep this account's signing key" in result.stderr
    output = result.output.replace("\n", "")
    assert "/1 with fp32, unjudged (nobody measured its answers" in output
    assert output.endswith("; unsigned")
    assert not (tmp_path / "repository" / "tiny-classifier" / "1" / SIGNATURE_NAME).exists()


def test_equal_version_that_was_changed_is_not_signed(write_recipe: WriteRecipe, tmp_path: Path) -> None:
    private, _ = generate_keys(tmp_path / "keys", None)
    recipe = write_recipe(variants=["fp32"])
    arguments = ["run", str(recipe), "--repository", str(tmp_path / "repository"), "--work", str(tmp_path / "work")]
    assert CliRunner().invoke(app, [*arguments, "--no-sign"]).exit_code == 0
    version_dir = tmp_path / "repository" / "tiny-classifier" / "1"
    (version_dir / "fp32.onnx").write_bytes(b"planted")

    result = CliRunner().invoke(app, [*arguments, "--sign-key", str(private)])

    assert result.exit_code == 1
    assert "not signed: fp32.onnx has SHA-256" in " ".join(result.output.split())
    assert not (version_dir / SIGNATURE_NAME).exists()
