"""What a server makes of a model's desired state, asked over HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import update_wrapper
from pathlib import Path
from typing import Any

import click
import httpx

from saccade.service.core import GIVEN_UP, STABLE
from saccade.service.errors import RepositoryError
from saccade.service.repository.serving_document import ServingDocument

_POLL_S = 0.05
_PROBLEM = "application/problem+json"  # a refusal in the server's words


@dataclass(frozen=True, slots=True)
class ServerOptions:
    url: str
    key_file: Path | None
    timeout_s: float

    def client(self) -> httpx.Client:
        key = self.key_file.read_text("utf-8").strip() if self.key_file else ""
        url = self.url if "://" in self.url else f"http://{self.url}"
        return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"} if key else {}, timeout=10.0)


def server_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds `--url`, `--key-file` and `--timeout`, and passes them as one `ServerOptions`."""

    def with_server(**values: Any) -> None:
        command(server=ServerOptions(values.pop("url"), values.pop("key_file"), values.pop("timeout")), **values)

    decorated: Callable[..., None] = update_wrapper(with_server, command)
    for option in (
        click.option("--timeout", type=float, default=120.0, show_default=True, help="seconds to wait at most"),
        click.option("--key-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="a bearer key"),
        click.option("--url", default="http://127.0.0.1:8000", show_default=True, help="server to ask"),
    ):
        decorated = option(decorated)
    return decorated


def served_state(server: ServerOptions, model: str) -> dict[str, Any]:
    """Returns what the server has in force, and its quarantined versions. Raises RepositoryError without an answer."""
    with server.client() as client:
        return _state(_model(client, model))


def given_up(server: ServerOptions, model: str) -> dict[str, str]:
    """Returns by version why the server has quarantined it or failed to load it. Raises RepositoryError."""
    with server.client() as client:
        versions = _model(client, model)["versions"]
    return {item["version"]: item["reason"] or item["state"] for item in versions if item["state"] in GIVEN_UP}


def wait_for(server: ServerOptions, model: str, document: ServingDocument) -> dict[str, Any]:
    """Waits until every label of the document answers. Raises RepositoryError when it is refused, or at the timeout."""
    try:
        return _in_force(server, model, document)
    except RepositoryError as error:
        raise RepositoryError(f"generation {document.generation} is written; {error}") from error


def _in_force(server: ServerOptions, model: str, document: ServingDocument) -> dict[str, Any]:
    deadline_s = time.monotonic() + server.timeout_s
    wanted = {label: str(version) for label, version in document.labels.items()}
    with server.client() as client:
        while True:
            shown = _model(client, model)
            state = _state(shown)
            versions = {item["version"]: item for item in shown["versions"]}
            named = {str(version) for version in document.named}
            states = {version: versions.get(version, {}).get("state", "not loaded") for version in named}
            if state["generation"] == document.generation:
                is_stable = wanted.get(STABLE, state["labels"].get(STABLE)) == state["labels"].get(STABLE)
                if is_stable and all(found == "ready" for found in states.values()):
                    return state
                for version, found in states.items():
                    if found in GIVEN_UP:
                        raise RepositoryError(
                            f"version {version} of {model!r} is {found}: {versions[version]['reason']}"
                        )
            elif f"generation {document.generation} " in state["problem"]:
                raise RepositoryError(f"{server.url} refuses the change: {state['problem']}")
            if time.monotonic() > deadline_s:
                raise RepositoryError(
                    f"not in force at {server.url} within {server.timeout_s:g} s: generation {state['generation']}, "
                    f"{', '.join(f'version {version} is {found}' for version, found in states.items())}"
                )
            time.sleep(_POLL_S)


def _state(shown: dict[str, Any]) -> dict[str, Any]:
    serving = shown["serving"] or {"generation": 0, "problem": ""}
    return {
        "generation": serving["generation"],
        "labels": shown["labels"],
        "problem": serving["problem"],
        "quarantined": {
            item["version"]: item["reason"] for item in shown["versions"] if item["state"] == "quarantined"
        },
    }


def _model(client: httpx.Client, model: str) -> dict[str, Any]:
    asked = f"cannot ask {client.base_url} about {model!r}"
    try:
        response = client.get(f"/v1/models/{model}")
        if response.headers.get("content-type") == _PROBLEM:
            refusal = response.json()
            raise RepositoryError(f"{asked}: {refusal['status']} {refusal['title']}: {refusal['detail']}")
        document: dict[str, Any] = response.raise_for_status().json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
        raise RepositoryError(f"{asked} ({error}); --url names a server elsewhere") from error
    return document
