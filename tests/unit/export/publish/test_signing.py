"""Keys are made and read safely; a version that verifies is signed once, and nothing but manifest.sig is added."""

from __future__ import annotations

import stat
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from saccade.export.cli.program import app, main
from saccade.export.errors import SigningError
from saccade.export.pipeline import RunSettings, rerun_command
from saccade.export.publish.signing import (
    PRIVATE_KEY_NAME,
    Signer,
    generate_keys,
    load_signer,
    sign_version,
)
from saccade.service.repository.signature import SIGNATURE_NAME
from saccade.service.repository.trusted_keys import SignaturePolicy, load_trusted_keys
from saccade.service.repository.verify import verify_version
from tests.support.signing import KEY_ID, OTHER_KEY, OTHER_KEY_ID, signed
from tests.support.versions import manifest_for, publish


@pytest.fixture(autouse=True)
def _no_key_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SACCADE_SIGN_KEY_FILE", "SACCADE_SIGN_KEY_PASSWORD"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    private, _ = generate_keys(tmp_path / "keys", None)
    return load_signer(private, None)


@pytest.fixture
def version_dir(tmp_path: Path) -> Path:
    return publish(tmp_path / "repository", manifest_for("digits", 1))


def contents(version_dir: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in version_dir.iterdir()}


def test_new_pair_fits_together_and_the_private_key_is_its_owners(tmp_path: Path) -> None:
    private, public = generate_keys(tmp_path / "keys", None)

    signer = load_signer(private, None)
    assert load_trusted_keys([public]) == {signer.key_id: signer.public_key}
    assert public.name == f"{signer.key_id}.pub.pem"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert private.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----")  # PKCS8
    assert public.read_bytes().startswith(b"-----BEGIN PUBLIC KEY-----")  # SubjectPublicKeyInfo


def test_private_key_is_never_overwritten(tmp_path: Path) -> None:
    private, _ = generate_keys(tmp_path, None)
    before = contents(tmp_path)

    with pytest.raises(SigningError, match=rf"{PRIVATE_KEY_NAME} is already there and stays"):
        generate_keys(tmp_path, None)
    assert contents(tmp_path) == before
    assert private.exists()


def test_password_encrypts_the_private_key_and_opens_it(tmp_path: Path) -> None:
    private, _ = generate_keys(tmp_path, "correct horse")

    assert private.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    load_signer(private, "correct horse")
    with pytest.raises(SigningError, match="is encrypted: set SACCADE_SIGN_KEY_PASSWORD"):
        load_signer(private, None)
    with pytest.raises(SigningError, match="not one that SACCADE_SIGN_KEY_PASSWORD opens") as refused:
        load_signer(private, "wrong horse")
    assert "horse" not in str(refused.value)


def test_password_for_an_open_key_is_a_mistake_that_is_named(signer: Signer) -> None:
    with pytest.raises(SigningError, match="unset SACCADE_SIGN_KEY_PASSWORD"):
        load_signer(signer.path, "superfluous")


@pytest.mark.parametrize("content", [b"", b"secret", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_file_that_holds_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)

    with pytest.raises(SigningError, match="is no private PEM key"):
        load_signer(tmp_path / "key", None)


def test_other_kinds_of_keys_are_refused(tmp_path: Path) -> None:
    key = generate_private_key(SECP256R1())
    (tmp_path / "key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    with pytest.raises(SigningError, match="not an Ed25519 key"):
        load_signer(tmp_path / "key", None)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_key_that_other_accounts_may_use_is_refused(signer: Signer, mode: int) -> None:
    signer.path.chmod(mode)

    with pytest.raises(SigningError, match=r"other accounts may use .*: run `chmod 600"):
        load_signer(signer.path, None)


def test_missing_key_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SigningError, match=r"cannot read the signing key .*absent: No such file"):
        load_signer(tmp_path / "absent", None)


def test_signing_adds_one_file_that_a_server_accepts_and_changes_no_other(version_dir: Path, signer: Signer) -> None:
    before = contents(version_dir)

    assert sign_version(version_dir, signer)

    after = contents(version_dir)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {SIGNATURE_NAME}
    assert [path.name for path in version_dir.parent.iterdir()] == ["1"]
    policy = SignaturePolicy({signer.key_id: signer.public_key}, is_required=True)
    assert verify_version(version_dir, policy).signed_by == signer.key_id
    assert stat.S_IMODE((version_dir / SIGNATURE_NAME).stat().st_mode) == 0o644


def test_signing_again_changes_nothing(version_dir: Path, signer: Signer) -> None:
    sign_version(version_dir, signer)
    before = (version_dir / SIGNATURE_NAME).stat()

    assert not sign_version(version_dir, signer)
    after = (version_dir / SIGNATURE_NAME).stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)


def test_another_keys_signature_stays_unless_it_is_to_be_replaced(version_dir: Path, signer: Signer) -> None:
    signed(version_dir, OTHER_KEY)
    before = contents(version_dir)

    with pytest.raises(SigningError, match=rf"it names key {OTHER_KEY_ID}.*--replace"):
        sign_version(version_dir, signer)
    assert contents(version_dir) == before

    assert sign_version(version_dir, signer, may_replace=True)
    policy = SignaturePolicy({signer.key_id: signer.public_key}, is_required=True)
    assert verify_version(version_dir, policy).signed_by == signer.key_id


def test_manifest_edited_after_signing_is_not_signed_over(version_dir: Path, signer: Signer) -> None:
    """Else the publisher's next run would bless what somebody else wrote."""
    sign_version(version_dir, signer)
    path = version_dir / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"limit": 0.0001', b'"limit": 0.9999'))

    with pytest.raises(SigningError, match="Find out why"):
        sign_version(version_dir, signer)


def test_version_that_a_server_would_refuse_is_not_signed(version_dir: Path, signer: Signer) -> None:
    (version_dir / "model.onnx").write_bytes(b"weightz")

    with pytest.raises(SigningError, match=r"not signed: .* the file changed after its gate"):
        sign_version(version_dir, signer)
    assert not (version_dir / SIGNATURE_NAME).exists()


def test_version_that_no_gate_let_through_is_not_signed(tmp_path: Path, signer: Signer) -> None:
    denied = publish(tmp_path / "repository", manifest_for("digits", 1, accepted=False))

    with pytest.raises(SigningError, match="no variant passed its gate"):
        sign_version(denied, signer)


def test_version_is_found_from_inside_its_model(
    version_dir: Path, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(version_dir.parent)

    assert sign_version(Path("1"), signer)


def test_command_to_repeat_a_step_names_the_key_file(signer: Signer, tmp_path: Path) -> None:
    settings = RunSettings(tmp_path / "work", tmp_path / "repository", signer=signer)

    command = rerun_command(Path("recipe.yaml"), settings, "publish")

    assert command.endswith(f"--sign-key {signer.path}")


def test_programs_make_a_pair_and_sign_with_it(version_dir: Path, tmp_path: Path) -> None:
    made = CliRunner().invoke(app, ["keygen", str(tmp_path / "pair"), "--json"])
    key = orjson.loads(made.output)["private_key"]
    first = CliRunner().invoke(app, ["sign", str(version_dir), "--key", key, "--json"])
    second = CliRunner().invoke(app, ["sign", str(version_dir)], env={"SACCADE_SIGN_KEY_FILE": key})

    assert (made.exit_code, first.exit_code, second.exit_code) == (0, 0, 0)
    assert orjson.loads(first.output)["is_new"] is True
    assert "was already signed by key" in second.output


def test_password_comes_from_the_environment(version_dir: Path, tmp_path: Path) -> None:
    secret = {"SACCADE_SIGN_KEY_PASSWORD": "correct horse"}
    made = CliRunner().invoke(app, ["keygen", str(tmp_path / "pair"), "--json"], env=secret)
    key = orjson.loads(made.output)["private_key"]

    assert b"ENCRYPTED" in Path(key).read_bytes()
    assert CliRunner().invoke(app, ["sign", str(version_dir), "--key", key], env=secret).exit_code == 0


def test_bad_key_fails_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = Path(__file__).resolve().parents[4] / "models/recipes/digits-classifier.yaml"
    work = tmp_path / "work"
    arguments = ["--repository", str(tmp_path), "--work", str(work), "--sign-key", str(tmp_path / "absent.pem")]
    monkeypatch.setattr("sys.argv", ["saccade-export", "run", str(recipe), *arguments])

    with pytest.raises(SystemExit) as stopped:
        main()

    assert stopped.value.code == 1
    assert "cannot read the signing key" in capsys.readouterr().err
    assert not work.exists()


def test_key_id_is_the_one_that_servers_compute(tmp_path: Path) -> None:
    _, public = generate_keys(tmp_path, None)

    assert list(load_trusted_keys([public])) == [public.name.removesuffix(".pub.pem")]
    assert KEY_ID == "56475aa75463474c"
