"""Refusals in the parser: the endpoint's own answer and counts, before anything is made, where all is plain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from uvicorn import Config
from uvicorn.server import ServerState

from saccade.service.api.admission import Admission
from saccade.service.api.app import Api, build_api
from saccade.service.api.http.limited_heads import LimitedHeads
from saccade.service.ipc.tensor_slots import SlotArena
from saccade.service.settings import Settings, resolved
from tests.unit.service.api.catalogs import catalog, manifests_of, status

PATH = "/v1/models/digits/predict?deadline_ms=200"
BODY = b"\xff" * 5000
SNAPSHOT = catalog(status(1))
KEY = "a-key-of-thirty-two-letters-or-so"


class Wire(asyncio.Transport):
    """Everything that was sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += bytes(data)

    def get_extra_info(self, name: str, default: object = None) -> object:
        return default

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        """A real transport stops reading; nothing is read here."""

    def resume_reading(self) -> None:
        """As above."""

    def get_write_buffer_size(self) -> int:
        return 0  # the client takes everything at once

    def close(self) -> None:
        self.sent += b"<closed>"


class Story:
    """A server whose slots are all taken, and one connection to it."""

    def __init__(self, api: Api, arena: SlotArena) -> None:
        self.api = api
        api.catalog.apply(SNAPSHOT, manifests_of(SNAPSHOT))
        instance = api.catalog.resolve("digits", None, None).instances[0]
        device = api.devices.by_name[instance.device]
        device.client._protocol = object()  # type: ignore[assignment]  # connected; nothing is sent
        device.slots.adopt(arena)
        device.slots.take(arena.slot_count, instance.instance_id)
        protocol = partial(LimitedHeads, timeout_s=1.0, refusals=api.refusals, early=api.early)
        config = Config(api.asgi, http=protocol, lifespan="off", log_config=None)  # type: ignore[arg-type]  # made like a class
        config.load()
        self.state = ServerState()
        self.state.default_headers = [(b"date", b"today")]
        self._protocol = partial(protocol, config=config, server_state=self.state, app_state={})
        self.connect()

    def connect(self) -> None:
        """A new connection takes the place of the one before."""
        self.wire = Wire()
        self.protocol = self._protocol()
        self.protocol.connection_made(self.wire)

    async def received(self, data: bytes) -> tuple[int, str]:
        """How many tasks of the application a piece from the client began, and what was sent without them."""
        self.wire.sent = b""
        self.protocol.data_received(data)
        tasks = len(self.state.tasks)
        await asyncio.sleep(0)  # a task has only begun by then
        return tasks, self.wire.sent.decode()

    async def answered(self) -> str:
        """What the application's tasks sent."""
        while tasks := list(self.state.tasks):  # the next one of a pipeline begins when one ends
            await asyncio.gather(*tasks)
            await asyncio.sleep(0)
        return self.wire.sent.decode()

    def counted(self, name: str) -> float:
        return sum(
            sample.value for metric in self.api.metrics.collected() for sample in metric.samples if sample.name == name
        )


def request(
    *fields: str, path: str = PATH, method: str = "POST", version: str = "1.1", length: int | None = 5000
) -> bytes:
    """The head of a request."""
    declared = () if length is None else (f"Content-Length: {length}",)
    lines = (f"{method} {path} HTTP/{version}", "Host: here", "X-Request-Id: mine", *declared, *fields, "", "")
    return "\r\n".join(lines).encode()


@pytest.fixture
async def story(tmp_path: Path) -> AsyncIterator[Story]:
    """The first request was refused by the application."""
    keys = tmp_path / "keys"
    keys.write_text(KEY)
    api = build_api(resolved(Settings(repository=tmp_path, api_keys_file=keys), 2), lambda generation: None)
    arena = SlotArena.create(4, 65_536)
    story = Story(api, arena)
    yield story
    arena.close()
    for pool in api.pools:
        pool.shutdown()


HEAD = request(f"Authorization: Bearer {KEY}")


async def test_second_refusal_is_the_first_one_again_without_a_task(story: Story) -> None:
    assert (await story.received(HEAD + BODY))[0] == 1
    first = await story.answered()

    assert await story.received(HEAD + BODY) == (0, first)
    assert first.startswith("HTTP/1.1 429 Too Many Requests\r\ndate: today\r\n")
    assert "x-request-id: mine\r\n" in first
    assert "retry-after: 1\r\n" in first
    assert story.counted("saccade_requests_total") == 2
    assert story.counted("saccade_shed_total") == 2


async def test_body_of_a_refused_request_is_dropped_in_pieces_and_a_new_connection_goes_on(story: Story) -> None:
    await story.received(HEAD + BODY)
    await story.answered()
    story.connect()

    assert (await story.received(HEAD + BODY[:100]))[1].startswith("HTTP/1.1 429 ")
    assert await story.received(BODY[100:4000]) == (0, "")
    assert (await story.received(BODY[4000:] + HEAD))[1].startswith("HTTP/1.1 429 ")
    assert await story.received(BODY) == (0, "")


async def test_refusals_leave_one_timer_for_the_next_request(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    await story.received(HEAD + BODY)
    await story.answered()
    timers: list[asyncio.TimerHandle] = []
    call_later = story.protocol.loop.call_later

    def noted(*given: Any) -> asyncio.TimerHandle:
        timers.append(call_later(*given))
        return timers[-1]

    monkeypatch.setattr(story.protocol, "loop", SimpleNamespace(call_later=noted))
    assert (await story.received((HEAD + BODY) * 3))[1].count("HTTP/1.1 429 ") == 3
    assert [timer.cancelled() for timer in timers] == [True, True, False]


async def test_a_thousand_requests_that_ask_for_another_protocol_are_one_loop(story: Story) -> None:
    asks = request("Connection: upgrade", "Upgrade: h2c", f"Authorization: Bearer {KEY}", length=0)
    await story.received(HEAD + BODY)
    await story.answered()

    tasks, sent = await story.received(asks * 1000)
    assert tasks == 0
    assert sent.count("HTTP/1.1 429 ") == 1000


@pytest.mark.parametrize(
    "head",
    [
        request(),
        request("Authorization: Bearer another"),
        request(f"Authorization: Bearer {KEY}", "X-Priority: urgent"),
        request(f"Authorization: Bearer {KEY}", "Content-Type: text/html"),
        request(f"Authorization: Bearer {KEY}", "Connection: close"),
        request(f"Authorization: Bearer {KEY}", "Expect: 100-continue"),
        request(f"Authorization: Bearer {KEY}", version="1.0"),
        request(f"Authorization: Bearer {KEY}", method="PUT"),
        request(f"Authorization: Bearer {KEY}", "Transfer-Encoding: chunked", length=None),
        request(f"Authorization: Bearer {KEY}", length=10**9),
        request(f"Authorization: Bearer {KEY}", path="/v1/models/letters/predict"),
        request(f"Authorization: Bearer {KEY}", path="/v1/models/digi%74s/predict?deadline_ms=200"),
        request(f"Authorization: Bearer {KEY}", path="/v2/models/digits/infer"),
        request(f"Authorization: Bearer {KEY}", path=f"{PATH}&top_p=3"),
        request(f"Authorization: Bearer {KEY}", path=f"{PATH}&variant=int4"),
    ],
)
async def test_all_else_is_the_applications(story: Story, head: bytes) -> None:
    await story.received(HEAD + BODY)
    await story.answered()

    assert (await story.received(head))[0] == 1


async def test_room_is_looked_for_by_the_application_while_refusals_are_rare(story: Story) -> None:
    assert (await story.received(HEAD))[0] == 1


async def test_server_that_drains_says_so(story: Story) -> None:
    await story.received(HEAD + BODY)
    await story.answered()
    story.api.switch.shut()

    assert (await story.received(HEAD + BODY))[0] == 1
    assert (await story.answered()).startswith("HTTP/1.1 503 ")


async def test_second_request_of_a_pipeline_waits_for_its_turn(story: Story) -> None:
    await story.received(HEAD + BODY)
    await story.answered()
    health = b"GET /health/live HTTP/1.1\r\nHost: here\r\n\r\n"

    assert (await story.received(health + HEAD + BODY))[0] == 1
    answers = await story.answered()
    assert answers.index("HTTP/1.1 200 ") < answers.index("HTTP/1.1 429 ")


def test_web_pages_and_traces_need_headers_of_their_own(tmp_path: Path) -> None:
    settings = resolved(Settings(repository=tmp_path, cors_origins="*"), 2)

    assert build_api(settings, lambda generation: None).early is None


@pytest.mark.parametrize(("there", "times"), [(5000, 0), (100, 1)], ids=["all has come", "some is to come"])
async def test_room_is_looked_for_ahead_of_a_body_that_is_to_come(
    story: Story, monkeypatch: pytest.MonkeyPatch, there: int, times: int
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(Admission, "ensure_room", lambda *given: asked.append(given))

    await story.received(HEAD + BODY[:there])
    assert len(asked) == times
    await story.received(BODY[there:])
    assert (await story.answered()).startswith("HTTP/1.1 429 ")  # by `Admission.admit`
    assert len(asked) == times
