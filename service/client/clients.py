"""`Client` and `AsyncClient`. Promises: a request is sent again only where the first one had no effect on its answer.

That is: when no connection was made, and after 429 and 503, as long after it as `Retry-After` says.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any

import httpx

from saccade.service.client.answers import AnyPrediction, Model
from saccade.service.client.calls import (
    Call,
    Outcome,
    Target,
    Tries,
    broken,
    is_of_one_picture,
    model_call,
    models_from,
    outcomes_from,
    predict_call,
    refusal,
)
from saccade.service.client.errors import ClientError, Problem
from saccade.service.client.pictures import Picture, encoded

KEY_VARIABLE = "SACCADE_CLIENT_KEY"


def _options(
    url: str, key: str | None, transport: httpx.BaseTransport | httpx.AsyncBaseTransport | None
) -> dict[str, Any]:
    """For both kinds of httpx's client."""
    key = os.environ.get(KEY_VARIABLE) if key is None else key
    headers = {"Authorization": f"Bearer {key.strip()}"} if key else {}
    return {"base_url": url if "://" in url else f"http://{url}", "headers": headers, "transport": transport}


class Client:
    """Asks a server. Its connections are kept: make one and share it, among threads too; close it at the end."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        key: str | None = None,
        routing_key: str | None = None,
        retries: int = 3,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`key`: a bearer key, by default SACCADE_CLIENT_KEY's. `routing_key`: of all requests that name none.

        Raises ValueError for what is no URL.
        """
        self._routing_key = routing_key
        self._retries = retries
        try:
            self._http = httpx.Client(**_options(url, key, transport))
        except httpx.InvalidURL as error:
            raise ValueError(f"{url!r} is not a URL: {error}") from error

    @property
    def url(self) -> str:
        return str(self._http.base_url)

    def predict(
        self,
        image: Picture,
        *,
        model: str,
        version: str | int | None = None,
        label: str | None = None,
        deadline_ms: float | None = None,
        priority: str | None = None,
        routing_key: str | None = None,
        **parameters: Any,
    ) -> AnyPrediction:
        """The answer to one picture. `deadline_ms` holds for all tries; `parameters` are top_k, score_threshold, ...

        Raises ClientError, OSError for a file that cannot be read, ValueError.
        """
        (outcome,) = self._ask([image], Target(model, version, label), deadline_ms, priority, routing_key, parameters)
        if isinstance(outcome, Problem):
            raise outcome
        return outcome

    def predict_many(
        self,
        images: Iterable[Picture],
        *,
        model: str,
        version: str | int | None = None,
        label: str | None = None,
        deadline_ms: float | None = None,
        priority: str | None = None,
        routing_key: str | None = None,
        **parameters: Any,
    ) -> list[Outcome]:
        """Several pictures in one request: answers in their order, a Problem in the place of each that failed.

        Raises ClientError for the request, OSError, ValueError.
        """
        target = Target(model, version, label)
        try:
            return self._ask(list(images), target, deadline_ms, priority, routing_key, parameters)
        except Problem as error:
            if is_of_one_picture(error):  # of a single picture its failure is the request's
                return [error]
            raise

    def models(self) -> list[Model]:
        """All models. Raises ClientError."""
        return models_from(self._send(model_call()))

    def model(self, name: str) -> Model:
        """Raises NotFound naming those that exist, and other ClientErrors."""
        return models_from(self._send(model_call(name)))[0]

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(
        self,
        pictures: list[Picture],
        target: Target,
        deadline_ms: float | None,
        priority: str | None,
        routing_key: str | None,
        parameters: dict[str, Any],
    ) -> list[Outcome]:
        images = [encoded(picture) for picture in pictures]
        call = predict_call(
            images,
            target,
            deadline_ms=deadline_ms,
            priority=priority,
            routing_key=routing_key or self._routing_key,
            parameters=parameters,
        )
        return outcomes_from(self._send(call))

    def _send(self, call: Call) -> httpx.Response:
        tries = Tries(self._retries, call.deadline_s, time.monotonic())
        failure: ClientError | None
        while True:
            try:
                response = self._http.request(**call.arguments(tries.left_s(time.monotonic())))
            except httpx.HTTPError as error:
                failure = broken(error, self._http.base_url)
            else:
                failure = refusal(response)
                if failure is None:
                    return response
            pause_s = tries.pause_s(failure, time.monotonic())
            if pause_s is None:
                raise failure
            time.sleep(pause_s)


class AsyncClient:
    """The same for asyncio. Files are read and pixels encoded in a thread."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        key: str | None = None,
        routing_key: str | None = None,
        retries: int = 3,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """As of Client. Raises ValueError for what is no URL."""
        self._routing_key = routing_key
        self._retries = retries
        try:
            self._http = httpx.AsyncClient(**_options(url, key, transport))
        except httpx.InvalidURL as error:
            raise ValueError(f"{url!r} is not a URL: {error}") from error

    @property
    def url(self) -> str:
        return str(self._http.base_url)

    async def predict(
        self,
        image: Picture,
        *,
        model: str,
        version: str | int | None = None,
        label: str | None = None,
        deadline_ms: float | None = None,
        priority: str | None = None,
        routing_key: str | None = None,
        **parameters: Any,
    ) -> AnyPrediction:
        """As Client.predict."""
        target = Target(model, version, label)
        (outcome,) = await self._ask([image], target, deadline_ms, priority, routing_key, parameters)
        if isinstance(outcome, Problem):
            raise outcome
        return outcome

    async def predict_many(
        self,
        images: Iterable[Picture],
        *,
        model: str,
        version: str | int | None = None,
        label: str | None = None,
        deadline_ms: float | None = None,
        priority: str | None = None,
        routing_key: str | None = None,
        **parameters: Any,
    ) -> list[Outcome]:
        """As Client.predict_many."""
        target = Target(model, version, label)
        try:
            return await self._ask(list(images), target, deadline_ms, priority, routing_key, parameters)
        except Problem as error:
            if is_of_one_picture(error):
                return [error]
            raise

    async def models(self) -> list[Model]:
        """As Client.models."""
        return models_from(await self._send(model_call()))

    async def model(self, name: str) -> Model:
        """As Client.model."""
        return models_from(await self._send(model_call(name)))[0]

    async def aclose(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _ask(
        self,
        pictures: list[Picture],
        target: Target,
        deadline_ms: float | None,
        priority: str | None,
        routing_key: str | None,
        parameters: dict[str, Any],
    ) -> list[Outcome]:
        images = await asyncio.to_thread(lambda: [encoded(picture) for picture in pictures])
        call = predict_call(
            images,
            target,
            deadline_ms=deadline_ms,
            priority=priority,
            routing_key=routing_key or self._routing_key,
            parameters=parameters,
        )
        return outcomes_from(await self._send(call))

    async def _send(self, call: Call) -> httpx.Response:
        tries = Tries(self._retries, call.deadline_s, time.monotonic())
        failure: ClientError | None
        while True:
            try:
                response = await self._http.request(**call.arguments(tries.left_s(time.monotonic())))
            except httpx.HTTPError as error:
                failure = broken(error, self._http.base_url)
            else:
                failure = refusal(response)
                if failure is None:
                    return response
            pause_s = tries.pause_s(failure, time.monotonic())
            if pause_s is None:
                raise failure
            await asyncio.sleep(pause_s)
