"""A server that requires signatures serves what a trusted key signed, and nothing else, without a missed request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from saccade.service.repository.signature import SIGNATURE_NAME, sign_manifest
from tests.support.images import red_png
from tests.support.server import Server, running_server
from tests.support.signing import KEY, KEY_ID, OTHER_KEY, signed, write_account_key, write_public_key
from tests.support.versions import manifest_for, publish, publish_fake


def publish_signed(root: Path, model: str, version: int) -> Path:
    """Signed before it appears, as the exporter does it."""
    made = signed(publish(root / ".elsewhere", manifest_for(model, version)))
    (root / model).mkdir(exist_ok=True)
    return made.rename(root / model / str(version))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repository")
    publish_signed(root, "steady", 1)
    return root


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("keys")
    write_public_key(root / "publisher.pem")
    return root


@pytest.fixture(scope="module")
def server(repository: Path, keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    workspace = tmp_path_factory.mktemp("server")
    settings = {"trusted_keys": keys, "require_signature": "true", "repository_poll_ms": 50}
    with running_server(repository, workspace, **settings) as running:
        yield running


def test_signed_version_is_served_and_its_signer_logged(server: Server) -> None:
    assert server.predict("steady", red_png(80)).json()["version"] == "1"
    assert {"steady": KEY_ID}.items() <= {
        event["model"]: event["key_id"] for event in server.events("version_signed")
    }.items()


def test_only_the_supervisor_loads_cryptography(server: Server) -> None:
    """It verifies for all; the others stay light."""

    def loads_cryptography(pid: int) -> bool:
        return "cryptography" in Path(f"/proc/{pid}/maps").read_text("utf-8")

    assert loads_cryptography(server.process.pid)
    assert [child.pid for child in server.family() if loads_cryptography(child.pid)] == []


def publish_unsigned(root: Path, model: str) -> None:
    publish_fake(root, model, 2)


def publish_by_a_stranger(root: Path, model: str) -> None:
    signed(publish(root / ".stranger", manifest_for(model, 2)), OTHER_KEY).rename(root / model / "2")


def publish_with_the_signature_of_version_1(root: Path, model: str) -> None:
    made = publish(root / ".copied", manifest_for(model, 2))
    (made / SIGNATURE_NAME).write_bytes((root / model / "1" / SIGNATURE_NAME).read_bytes())
    made.rename(root / model / "2")


def publish_edited_after_signing(root: Path, model: str) -> None:
    made = signed(publish(root / ".edited", manifest_for(model, 2, accepted=False)))
    manifest = (made / "manifest.json").read_bytes()
    (made / "manifest.json").write_bytes(manifest.replace(b'"accepted": false', b'"accepted": true'))
    made.rename(root / model / "2")


@pytest.mark.parametrize(
    ("publish_refused", "reason"),
    [
        (publish_unsigned, "is not signed"),
        (publish_by_a_stranger, "which is not trusted"),
        (publish_with_the_signature_of_version_1, "copied from elsewhere"),
        (publish_edited_after_signing, "manifest.json has SHA-256"),
    ],
)
def test_version_without_a_valid_signature_is_refused_while_the_old_one_goes_on(
    server: Server, repository: Path, publish_refused: Callable[[Path, str], None], reason: str
) -> None:
    model = publish_refused.__name__.replace("_", "-")
    publish_signed(repository, model, 1)
    server.wait_state(model, 1, "ready")

    publish_refused(repository, model)
    refused = server.wait_state(model, 2, "failed")

    assert reason in refused["reason"]
    assert server.predict(model, red_png(80)).json()["version"] == "1"
    by_path = server.predict(model, red_png(80), path="versions/2/predict")
    assert by_path.status_code == 503
    assert reason in by_path.json()["detail"]
    assert server.is_ready()


def test_refused_version_is_served_once_it_is_signed(server: Server, repository: Path) -> None:
    publish_signed(repository, "late", 1)
    version_dir = publish_fake(repository, "late", 2)
    server.wait_state("late", 2, "failed")

    manifest = (version_dir / "manifest.json").read_bytes()
    scratch = repository / "late" / ".signing"
    scratch.write_bytes(sign_manifest(manifest, KEY))
    scratch.rename(version_dir / SIGNATURE_NAME)

    server.wait_state("late", 2, "ready")
    assert server.predict("late", red_png(80)).json()["version"] == "2"


def test_server_that_only_checks_serves_unsigned_versions_and_refuses_invalid_ones(keys: Path, tmp_path: Path) -> None:
    root = tmp_path / "repository"
    publish_fake(root, "unsigned", 1)
    signed(publish(root, manifest_for("strange", 1)), OTHER_KEY)

    with running_server(root, tmp_path, trusted_keys=keys) as running:
        assert running.predict("unsigned", red_png(80)).status_code == 200
        assert "not trusted" in running.wait_state("strange", 1, "failed")["reason"]


def test_server_trusts_its_accounts_key_and_serves_what_others_signed_as_unsigned(tmp_path: Path) -> None:
    write_account_key(tmp_path / "config")
    root = tmp_path / "repository"
    signed(publish(root, manifest_for("mine", 1)))
    publish_fake(root, "unsigned", 1)
    signed(publish(root, manifest_for("strange", 1)), OTHER_KEY)
    publish_signed(root, "edited", 1)
    publish_edited_after_signing(root, "edited")

    with running_server(root, tmp_path, environment={"XDG_CONFIG_HOME": str(tmp_path / "config")}) as running:
        refused = running.wait_state("edited", 2, "failed")
        signers = {
            (model["name"], version["version"]): version["signed_by"]
            for model in running.client.get("/v1/models").json()["models"]
            for version in model["versions"]
        }

    assert "manifest.json has SHA-256" in refused["reason"]
    assert signers == {
        ("mine", "1"): KEY_ID,
        ("unsigned", "1"): "unsigned",
        ("strange", "1"): "unsigned",
        ("edited", "1"): KEY_ID,
        ("edited", "2"): None,
    }
    assert {event["model"]: event["key_id"] for event in running.events("version_signed")} == {
        "mine": KEY_ID,
        "edited": KEY_ID,
    }
    assert {event["model"] for event in running.events("version_unsigned")} == {"unsigned", "strange"}
