"""The one table from errors to HTTP: complete, and silent about what is ours."""

from __future__ import annotations

import inspect

import pytest

from saccade.service import errors
from saccade.service.api.http.error_responses import problem_of, retry_after, status_of
from saccade.service.core import Outcome
from saccade.service.errors import (
    BackendError,
    BadImage,
    BadParameter,
    BadRequest,
    BadSignature,
    BenchFailed,
    ClientLeft,
    DamagedSignature,
    DeadlineExceeded,
    DecoderLost,
    DeviceLost,
    Draining,
    InferenceFailed,
    NoDirection,
    NotFinite,
    NotFound,
    NotLoaded,
    NotReady,
    OutOfDeviceMemory,
    Overloaded,
    PayloadTooLarge,
    PictureTooLarge,
    PlanRefused,
    PoorPicture,
    RepositoryError,
    RuntimeMissing,
    SaccadeError,
    SettingsError,
    SignatureRefused,
    StartFailed,
    Unavailable,
    UnknownSigner,
    Unprocessable,
    UnsignedVersion,
    UnsupportedEncoding,
    UnsupportedMedia,
    WorkerLost,
)
from saccade.service.ipc.api_keys import Forbidden, Unauthorized

SECRET = "/srv/models/secret: segmentation fault at 0x7f"

EXPECTED: dict[type[SaccadeError], tuple[int, Outcome]] = {
    Unauthorized: (401, Outcome.BAD_REQUEST),
    Forbidden: (403, Outcome.BAD_REQUEST),
    BadRequest: (400, Outcome.BAD_REQUEST),
    UnsupportedEncoding: (415, Outcome.BAD_REQUEST),
    UnsupportedMedia: (415, Outcome.BAD_REQUEST),
    PayloadTooLarge: (413, Outcome.BAD_REQUEST),
    Unprocessable: (422, Outcome.BAD_REQUEST),
    BadImage: (422, Outcome.BAD_REQUEST),
    BadParameter: (422, Outcome.BAD_REQUEST),
    NoDirection: (422, Outcome.BAD_REQUEST),
    PoorPicture: (422, Outcome.BAD_REQUEST),
    PictureTooLarge: (413, Outcome.BAD_REQUEST),
    NotFound: (404, Outcome.BAD_REQUEST),
    Overloaded: (429, Outcome.OVERLOADED),
    Unavailable: (503, Outcome.UNAVAILABLE),
    NotReady: (503, Outcome.UNAVAILABLE),
    DecoderLost: (503, Outcome.UNAVAILABLE),
    NotLoaded: (503, Outcome.UNAVAILABLE),
    Draining: (503, Outcome.UNAVAILABLE),
    WorkerLost: (503, Outcome.UNAVAILABLE),
    DeadlineExceeded: (504, Outcome.DEADLINE),
    ClientLeft: (499, Outcome.CLIENT_LEFT),
    InferenceFailed: (500, Outcome.ERROR),
    NotFinite: (500, Outcome.ERROR),
}
OURS = (
    SaccadeError,
    BackendError,
    RuntimeMissing,
    PlanRefused,
    OutOfDeviceMemory,
    DeviceLost,
    RepositoryError,
    SignatureRefused,
    UnsignedVersion,
    UnknownSigner,
    BadSignature,
    DamagedSignature,
    SettingsError,
    StartFailed,
    BenchFailed,
)


def instance_of(kind: type[SaccadeError], text: str = "what was given") -> SaccadeError:
    if kind is NotLoaded:
        return NotLoaded(text, "digits", 1)
    return Overloaded(text, 1.0, "slots") if kind is Overloaded else kind(text)


def error_classes() -> list[type[SaccadeError]]:
    return [item for _, item in inspect.getmembers(errors, inspect.isclass) if issubclass(item, SaccadeError)]


def test_every_error_is_either_in_the_table_or_ours() -> None:
    assert set(error_classes()) | {Unauthorized, Forbidden} == set(EXPECTED) | set(OURS)


@pytest.mark.parametrize("kind", list(EXPECTED))
def test_error_maps_as_the_contract_says(kind: type[SaccadeError]) -> None:
    status, title, outcome = status_of(instance_of(kind))

    assert (status, outcome) == EXPECTED[kind]
    assert title


@pytest.mark.parametrize("kind", list(EXPECTED))
def test_problem_shows_the_text_written_for_the_reader(kind: type[SaccadeError]) -> None:
    document = problem_of(instance_of(kind), "id-1")

    assert document.keys() == {"type", "title", "status", "detail", "request_id"}
    assert (document["detail"], document["request_id"]) == ("what was given", "id-1")
    assert document["type"] == "urn:saccade:problem:" + document["title"].lower().replace(" ", "-")


@pytest.mark.parametrize("kind", OURS)
def test_what_is_ours_never_shows_its_text(kind: type[SaccadeError]) -> None:
    document = problem_of(kind(SECRET), "id-1")

    assert (document["status"], document["title"]) == (500, "Internal error")
    assert SECRET not in str(document)
    assert "request id" in document["detail"]


@pytest.mark.parametrize("kind", OURS)
def test_what_is_ours_counts_as_an_error(kind: type[SaccadeError]) -> None:
    assert status_of(kind(SECRET))[2] is Outcome.ERROR


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (Overloaded("", 0.2, "slots"), "1"),
        (Overloaded("", 2.1, "slots"), "3"),
        (NotReady(""), "1"),
        (WorkerLost("", 4.0), "4"),
        (Draining(""), "1"),
        (BadImage(""), None),
        (DeadlineExceeded(""), None),
        (SaccadeError(""), None),
    ],
)
def test_retry_after_is_whole_seconds_where_retrying_helps(error: SaccadeError, seconds: str | None) -> None:
    assert retry_after(error) == seconds


def test_titles_are_one_per_status() -> None:
    titles: dict[int, set[str]] = {}
    for kind in EXPECTED:
        status, title, _ = status_of(instance_of(kind))
        titles.setdefault(status, set()).add(title)

    assert titles[422] == {"Bad parameter", "Image cannot be used"}
    assert all(len(found) == 1 for status, found in titles.items() if status != 422)


def test_tree_in_the_module_docstring_names_every_error() -> None:
    docstring = errors.__doc__ or ""

    assert [kind.__name__ for kind in error_classes() if kind.__name__ not in docstring] == []
