"""What is sent, and in which order. Every request's bytes are made before the load starts; the seed fixes the order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlencode, urlsplit

import numpy as np
from numpy.typing import NDArray

from saccade.service.bench.images import ImageFile
from saccade.service.bench.traces import Arrival
from saccade.service.errors import BadParameter

DEFAULT_PATH = "/v1/models/{model}/predict"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The parts of the server's URL."""

    host: str
    port: int
    is_tls: bool
    prefix: str  # path before the API's own, without a slash at its end

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.is_tls else 80) else f"{host}:{self.port}"


def endpoint_of(url: str) -> Endpoint:
    """Parses a URL. Raises BadParameter."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in ("http", "https") or not parts.hostname or port == -1 or parts.username or parts.query:
        raise BadParameter(f"{url!r} is not a server's URL; it looks like http://127.0.0.1:8000")
    is_tls = parts.scheme == "https"
    return Endpoint(parts.hostname, port or (443 if is_tls else 80), is_tls, parts.path.rstrip("/"))


@dataclass(frozen=True, slots=True)
class ModelShare:
    """One model's share of the mix, and its images."""

    model: str
    weight: float
    images: tuple[ImageFile, ...]


@dataclass(frozen=True, slots=True)
class RequestShape:
    """What all requests have in common."""

    headers: tuple[tuple[str, str], ...] = ()
    query: tuple[tuple[str, str], ...] = ()
    path: str = DEFAULT_PATH


@dataclass(frozen=True, slots=True)
class Item:
    """One body for one model: head and content of an HTTP/1.1 request."""

    model: str
    image: str
    head: bytes
    content: bytes

    @property
    def size_bytes(self) -> int:
        return len(self.head) + len(self.content)


@dataclass(frozen=True, slots=True)
class Workload:
    """All items, grouped by model, and how often each model is asked."""

    items: tuple[Item, ...]
    weights: Mapping[str, float]

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(self.weights)

    def items_of(self, model: str) -> NDArray[np.int64]:
        return np.array([index for index, item in enumerate(self.items) if item.model == model], np.int64)


def workload_of(shares: Sequence[ModelShare], endpoint: Endpoint, shape: RequestShape) -> Workload:
    items = tuple(
        _item(share.model, image, endpoint, shape) for share in shares for image in share.images
    )  # models share the bytes of a body only if their images come from one folder
    return Workload(items, {share.model: share.weight for share in shares})


def _item(model: str, image: ImageFile, endpoint: Endpoint, shape: RequestShape) -> Item:
    target = endpoint.prefix + shape.path.format(model=quote(model, safe=""))
    if shape.query:
        target += "?" + urlencode(shape.query)
    lines = [
        f"POST {target} HTTP/1.1",
        f"Host: {endpoint.authority}",
        "User-Agent: saccade-bench",
        "Accept: */*",
        f"Content-Type: {image.media_type}",
        f"Content-Length: {len(image.content)}",
        *(f"{name}: {value}" for name, value in shape.headers),
    ]
    return Item(model, image.name, ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"), image.content)


def order_of(workload: Workload, count: int, seed: int) -> NDArray[np.int64]:
    """Index into `items` of each request: models are drawn by weight, each model's images in shuffled rounds."""
    random = np.random.default_rng(np.random.SeedSequence(seed).spawn(3)[2])
    weights = np.array(list(workload.weights.values()), np.float64)
    chosen = random.choice(len(weights), size=count, p=weights / weights.sum())
    order = np.empty(count, np.int64)
    for number, model in enumerate(workload.models):
        places = np.flatnonzero(chosen == number)
        order[places] = _rounds(workload.items_of(model), len(places), random)
    return order


def order_of_trace(workload: Workload, arrivals: Sequence[Arrival], count: int, seed: int) -> NDArray[np.int64]:
    """The same as `order_of`, except that the last requests follow the trace where it names a model or image.

    Raises BadParameter for a model that is not part of the load.
    """
    order = order_of(workload, count, seed)
    index_by_name = {(item.model, item.image): index for index, item in enumerate(workload.items)}
    start = count - len(arrivals)
    for place, arrival in enumerate(arrivals, start):
        if arrival.model is not None and arrival.model not in workload.weights:
            raise BadParameter(
                f"the trace asks {arrival.model!r}; this load has {', '.join(workload.models)}: name it in --mix"
            )
        model = arrival.model or workload.items[order[place]].model
        named = index_by_name.get((model, arrival.image or ""))
        if named is not None:
            order[place] = named
        elif workload.items[order[place]].model != model:
            candidates = workload.items_of(model)
            order[place] = candidates[place % len(candidates)]
    return order


def _rounds(items: NDArray[np.int64], count: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Every item once before any twice, shuffled anew each round."""
    rounds = [random.permutation(items) for _ in range(-(-count // len(items)))]
    return np.concatenate(rounds)[:count] if rounds else items[:0]
