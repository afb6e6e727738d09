"""An S3 server on loopback (moto's, in a process of its own), and what a publisher and a saboteur do to its buckets."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import httpx

from saccade.service.repository.object_store.contents import StoredObject
from saccade.service.repository.object_store.store import ReadObject, Store, StoreUnreadable, opened_store
from tests.support.ports import free_port
from tests.support.server import wait_until

BUCKET = "models"
URL = f"s3://{BUCKET}/vision"
SECRET = "not-to-be-logged"


class ObjectStoreServer:
    """A server that can be stopped and started again, on the same port; what it holds is lost by that."""

    def __init__(self, workspace: Path) -> None:
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._log = workspace / "moto.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.environment = {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "AKIATEST",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "XDG_CACHE_HOME": str(workspace / "cache"),
        }

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_until(self._is_up, 40.0, "moto listens")
        self.make_bucket(BUCKET)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def hang(self) -> None:
        """Connections are accepted from now on, and nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def make_bucket(self, name: str) -> None:
        httpx.put(f"{self.endpoint}/{name}").raise_for_status()

    def put_raw(self, key: str, content: bytes) -> None:
        """An object by its very key, also one that no client library would take."""
        import boto3

        keys = {"aws_access_key_id": "AKIATEST", "aws_secret_access_key": SECRET, "region_name": "us-east-1"}
        boto3.client("s3", endpoint_url=self.endpoint, **keys).put_object(Bucket=BUCKET, Key=key, Body=content)

    def _is_up(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.endpoint}/moto-api/").status_code < 500
        return False


@contextlib.contextmanager
def object_store_server(workspace: Path) -> Iterator[ObjectStoreServer]:
    """A server with an empty bucket; this process's environment leads to it."""
    server = ObjectStoreServer(workspace)
    with patch.dict(os.environ, server.environment):
        try:
            server.start()
            yield server
        finally:
            server.stop()


def upload(directory: Path, store: Store, *, without: tuple[str, ...] = ()) -> None:
    """Copies a published version into a store, its manifest last."""
    parts = f"{directory.parent.name}/{directory.name}"
    files = sorted(
        (path for path in directory.rglob("*") if path.is_file()), key=lambda path: path.name[:8] == "manifest"
    )
    for path in files:
        if path.name not in without:
            store.write(f"{parts}/{path.relative_to(directory).as_posix()}", path.read_bytes())


def store_at(url: str = URL) -> Store:
    return opened_store(url)


class FaultyStore(Store):
    """A store some of whose objects are cut short, cannot be read, or take as long as the test says."""

    def __init__(self, store: Store) -> None:
        super().__init__(store._store, store.url)
        self.cut: dict[str, int] = {}  # bytes that come of an object, by key
        self.denied: dict[str, str] = {}  # reasons by key; "" denies a listing
        self.read_keys: list[str] = []

    def objects(self, prefix: str = "") -> list[StoredObject]:
        if "" in self.denied:
            raise StoreUnreadable(self.denied[""])
        return super().objects(prefix)

    def read(self, key: str, most_bytes: int) -> ReadObject | None:
        if key in self.denied:
            raise StoreUnreadable(self.denied[key])
        return super().read(key, most_bytes)

    def piece(self, found: StoredObject, start: int, end: int) -> bytes:
        self.read_keys.append(found.key)
        if found.key in self.denied:
            raise StoreUnreadable(self.denied[found.key])
        content = super().piece(found, start, end)
        return content[: self.cut.get(found.key, len(content))]
