"""A repository's place: a directory, or a URL whose copy lies in the account's cache."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from saccade.service.cli.effective_settings import effective_lines
from saccade.service.errors import RepositoryError
from saccade.service.repository.object_store.address import (
    claim_copy,
    copy_of,
    directory_of,
    shown,
    url_of,
    url_of_copy,
)
from saccade.service.settings import settings_from


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("url", ["s3://bucket/a/b", "gs://bucket", "az://container/a", "https://example.org/models"])
def test_a_url_given_as_a_path_is_a_url_again(url: str) -> None:
    assert url_of(Path(url)) == url
    assert shown(Path(url)) == url
    assert url_of(Path(url + "/")) == url


@pytest.mark.parametrize("path", ["repository", "/srv/models", "./s3", "s3", "http:/x", "file:/x"])
def test_a_directory_stays_one(path: str) -> None:
    assert url_of(Path(path)) is None
    assert directory_of(Path(path)) == Path(path)


@pytest.mark.parametrize(
    "url", ["https://me:hunter2@example.org/x", "https://example.org/x?sig=hunter2", "s3://hunter2@b/x"]
)
def test_a_url_with_a_secret_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(RepositoryError, match="environment") as refused:
        url_of(Path(url))

    assert "hunter2" not in str(refused.value)


def test_a_url_without_a_bucket_is_refused() -> None:
    with pytest.raises(RepositoryError, match="names no bucket"):
        url_of(Path("s3://"))


def test_every_url_has_a_copy_of_its_own_which_knows_it(cache: Path) -> None:
    first, second = claim_copy("s3://bucket/a-b"), claim_copy("s3://bucket/a/b")

    assert first != second
    assert first.is_relative_to(cache)
    assert (url_of_copy(first), url_of_copy(second)) == ("s3://bucket/a-b", "s3://bucket/a/b")
    assert first.parent.parent.stat().st_mode & 0o077 == 0


def test_a_file_in_a_plain_repository_leads_no_writer_to_a_store(tmp_path: Path) -> None:
    repository = tmp_path / "elsewhere" / "versions"
    repository.mkdir(parents=True)
    (repository.parent / "store.json").write_text(json.dumps({"url": "s3://theirs/x"}))

    assert url_of_copy(repository) is None
    assert url_of_copy(copy_of("s3://never/claimed")) is None


def test_printed_settings_have_the_url_as_it_was_given() -> None:
    settings = settings_from({"SACCADE_REPOSITORY": "s3://bucket/a"})

    assert "SACCADE_REPOSITORY=s3://bucket/a" in [*effective_lines(settings, 2)]
