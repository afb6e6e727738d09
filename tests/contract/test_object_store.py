"""The store as S3 speaks it: conditional writes, pages of a listing, and refusals."""

from __future__ import annotations

import contextvars
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from obstore.store import HTTPStore

from saccade.service.cli.stored_repository import say_what_is_waited_for
from saccade.service.errors import RepositoryError, SettingsError
from saccade.service.repository.object_store.address import claim_copy
from saccade.service.repository.object_store.contents import StoredObject
from saccade.service.repository.object_store.mirror import CopyRules
from saccade.service.repository.object_store.store import (
    ObjectChanged,
    ObjectExists,
    Store,
    StoreUnreadable,
    opened_store,
)
from saccade.service.repository.serving_changes import Asked, changed, labelled, present_of, promoted, rolled_back
from saccade.service.repository.serving_history import ServingConflict, serving_history
from tests.support.object_store import BUCKET, SECRET, ObjectStoreServer, upload
from tests.support.versions import publish_fake

RULES = CopyRules(bound_bytes=2**30, versions_per_model=2)


# One object


def test_an_object_is_created_once(store: Store) -> None:
    store.create("a", b"first")
    with pytest.raises(ObjectExists):
        store.create("a", b"second")

    read = store.read("a", 100)
    assert read is not None
    assert read.content == b"first"
    assert store.read("b", 100) is None


def test_an_object_is_replaced_only_while_it_is_the_one_that_was_read(store: Store) -> None:
    store.create("a", b"first")
    read = store.read("a", 100)
    assert read is not None
    store.replace("a", b"second", read)
    with pytest.raises(ObjectChanged):
        store.replace("a", b"third", read)


def test_a_piece_of_another_object_than_the_listed_one_is_refused(store: Store) -> None:
    store.write("a", b"first")
    (listed,) = store.objects()
    assert store.piece(listed, 1, 3) == b"ir"
    store.write("a", b"other")
    with pytest.raises(ObjectChanged):
        store.piece(listed, 1, 3)
    store.remove("a")
    with pytest.raises(StoreUnreadable, match="no such object"):
        store.piece(listed, 1, 3)


def test_a_listing_has_more_than_one_page(store: Store, server: ObjectStoreServer) -> None:
    for number in range(1010):
        store.write(f"m/{number}", b"")

    assert len(store.objects()) == 1010
    assert store.level() == ([], ["m/"])


def test_keys_with_blanks_and_other_letters_come_back_as_they_are(store: Store) -> None:
    store.write("a b/ü%20#?.txt", b"1")
    (found,) = store.objects()

    assert found.key == "a b/ü%20#?.txt"
    assert store.piece(found, 0, 1) == b"1"


# Refusals


def test_a_missing_bucket_is_said_in_words(server: ObjectStoreServer) -> None:
    with pytest.raises(StoreUnreadable, match=r"404 Not Found: no such bucket"):
        opened_store("s3://nowhere/x").objects()


def test_a_store_that_is_not_there_is_said_without_its_secret(
    server: ObjectStoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(StoreUnreadable, match="cannot be reached") as error:
        opened_store(f"s3://{BUCKET}/x").objects()

    assert SECRET not in str(error.value)


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch, server: ObjectStoreServer) -> Iterator[Store]:
    """A store that accepts and never answers."""
    monkeypatch.setattr("saccade.service.repository.object_store.store._REQUEST_S", 0.2)
    monkeypatch.setattr("saccade.service.repository.object_store.store._SLOW_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{listening.getsockname()[1]}")
        yield opened_store(f"s3://{BUCKET}/x")


def test_a_store_that_accepts_and_never_answers_is_given_up(silent: Store) -> None:
    for ask in (silent.objects, silent.level, lambda: silent.read("a", 1), lambda: silent.create("a", b"")):
        with pytest.raises(StoreUnreadable, match="no answer in time"):
            ask()
    with pytest.raises(StoreUnreadable, match="no answer in time"):
        silent.piece(StoredObject("a", 5, "t"), 0, 5)


def test_a_command_is_told_once_what_it_waits_for(silent: Store, capsys: pytest.CaptureFixture[str]) -> None:
    def asked() -> None:
        say_what_is_waited_for()
        for _ in range(2):
            with pytest.raises(StoreUnreadable):
                silent.objects("cat/")

    contextvars.copy_context().run(asked)

    assert capsys.readouterr().err == f"waiting for s3://{BUCKET}/x: list cat/\n"


def test_a_slow_piece_that_goes_on_coming_is_not_cut(
    monkeypatch: pytest.MonkeyPatch, server: ObjectStoreServer
) -> None:
    monkeypatch.setattr("saccade.service.repository.object_store.store._REQUEST_S", 0.4)
    content = b"slow" * 8

    class Slow(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(206)
            end = len(content) - 1
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Content-Range", f"bytes 0-{end}/{len(content)}")
            self.send_header("Last-Modified", "Mon, 12 Jan 2026 09:25:56 GMT")
            self.send_header("ETag", '"t"')
            self.end_headers()
            for start in range(0, len(content), 4):  # 0.8 s in all
                threading.Event().wait(0.1)
                self.wfile.write(content[start : start + 4])
                self.wfile.flush()

        def log_message(self, *_arguments: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{web.server_address[1]}")
        store = opened_store(f"s3://{BUCKET}/x")
        assert store.piece(StoredObject("a", len(content), '"t"'), 0, len(content)) == content
        with pytest.raises(StoreUnreadable, match="no answer in time"):
            store.read("a", 100)
        web.shutdown()


class WebDav(BaseHTTPRequestHandler):
    """Two files and a folder, as a WebDAV server lists them."""

    files: ClassVar[dict[str, bytes]] = {"/models/cat/1/manifest.json": b"{}", "/models/cat/1/model.onnx": b"weights"}

    def do_PROPFIND(self) -> None:
        entries = "".join(
            f"<D:response><D:href>{path}</D:href><D:propstat><D:prop><D:getlastmodified>"
            f"Mon, 12 Jan 2026 09:25:56 GMT</D:getlastmodified><D:getcontentlength>{len(content)}</D:getcontentlength>"
            "<D:resourcetype/></D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>"
            for path, content in self.files.items()
        )
        self._answer(207, f'<?xml version="1.0"?><D:multistatus xmlns:D="DAV:">{entries}</D:multistatus>'.encode())

    def do_GET(self) -> None:
        content = self.files[self.path]
        start, _, end = self.headers.get("Range", f"bytes=0-{len(content) - 1}").removeprefix("bytes=").partition("-")
        part = content[int(start) : int(end) + 1]
        self._answer(206, part, {"Content-Range": f"bytes {start}-{end}/{len(content)}"})

    def _answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Length": str(len(content)),
            "Last-Modified": "Mon, 12 Jan 2026 09:25:56 GMT",
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_arguments: object) -> None:
        return


def test_a_web_server_that_lists_by_webdav_is_read_without_etags() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), WebDav) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        root = HTTPStore.from_url(f"http://127.0.0.1:{web.server_address[1]}", client_options={"allow_http": True})
        store = Store(root, "https://example.org/models", "models/")
        found = {each.key: each for each in store.objects()}

        assert sorted(found) == ["cat/1/manifest.json", "cat/1/model.onnx"]
        assert not found["cat/1/model.onnx"].is_etag
        assert store.piece(found["cat/1/model.onnx"], 1, 4) == b"eig"
        web.shutdown()


def test_https_is_read_only() -> None:
    with pytest.raises(RepositoryError, match="read-only"):
        opened_store("https://example.org/models").create("a", b"")


def test_an_address_without_its_account_refuses_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(SettingsError, match="cannot be opened"):
        opened_store("az://container/x")


# Documents


@pytest.fixture
def copy(url: str, store: Store, tmp_path: Path) -> Path:
    """The copy of a store with three versions of `cat`, none of which is fetched."""
    for number in (1, 2, 3):
        upload(publish_fake(tmp_path, "cat", number), store)
    return claim_copy(url)


def ask(copy: Path, **options: object) -> Asked:
    return Asked(copy, "cat", "anna", **options)  # type: ignore[arg-type]


def test_a_change_is_written_to_the_store_with_its_history(copy: Path, store: Store) -> None:
    first = changed(ask(copy, reason="why"), promoted(2))
    second = changed(ask(copy), labelled("old", 1))

    assert (first.generation, second.generation) == (1, 2)
    read = store.read("cat/serving.json", 10_000)
    assert read is not None
    assert b'"old": 1' in read.content
    assert {"cat/.serving/1.json", "cat/.serving/2.json"} <= {each.key for each in store.objects("cat/")}
    assert present_of(copy, None, "cat").versions == [1, 2, 3]


def test_a_change_fetches_and_verifies_what_it_newly_names(copy: Path, store: Store) -> None:
    store.write("cat/1/model.onnx", b"WEIGHTS")
    with pytest.raises(RepositoryError, match="changed after its gate"):
        changed(ask(copy), promoted(1))
    with pytest.raises(RepositoryError, match="has no version 9"):
        changed(ask(copy), promoted(9))

    assert store.read("cat/serving.json", 10) is None


def test_of_two_writers_one_wins_and_the_other_is_told(copy: Path, store: Store) -> None:
    changed(ask(copy), promoted(2))
    with pytest.raises(ServingConflict, match="expected generation 0, there is 1"):
        changed(ask(copy, expected_generation=0), promoted(3))

    class Late(Store):
        """Another writer comes between this one's look and its write."""

        def replace(self, key: str, content: bytes, before: object) -> None:
            other = store.read(key, 10_000)
            assert other is not None
            store.replace(key, other.content.replace(b'"generation": 1', b'"generation": 2'), other)
            super().replace(key, content, before)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "saccade.service.repository.object_store.documents.opened_store",
            lambda url: Late(store._store, url),
        )
        with pytest.raises(ServingConflict, match="has generation 2, expected was 1"):
            changed(ask(copy), promoted(3))
    assert {each.key for each in store.objects("cat/.serving/")} == {"cat/.serving/1.json"}


def test_a_write_whose_answer_was_lost_is_no_conflict(copy: Path, store: Store) -> None:
    class Deaf(Store):
        def create(self, key: str, content: bytes) -> None:
            super().create(key, content)
            raise ObjectExists(key)

        def write(self, key: str, content: bytes | Path) -> None:
            raise StoreUnreadable("no answer in time")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "saccade.service.repository.object_store.documents.opened_store", lambda url: Deaf(store._store, url)
        )
        assert changed(ask(copy), promoted(3)).generation == 1
    assert present_of(copy, None, "cat").stable == 3


def test_a_rollback_finds_the_version_before_in_the_stores_history(copy: Path, url: str) -> None:
    changed(ask(copy), promoted(1))
    changed(ask(copy), promoted(3))
    for path in copy.glob("cat/.serving/*"):
        path.unlink()  # as on another machine

    assert changed(ask(copy), rolled_back()).labels == {"stable": 1}
    assert [each.generation for each in serving_history(copy, "cat")] == [2, 1]


def test_an_object_of_a_weak_tag_is_read_without_a_condition(store: Store) -> None:
    store.write("a", b"first")

    assert store.piece(StoredObject("a", 5, 'W/"x"', is_etag=False), 0, 5) == b"first"
