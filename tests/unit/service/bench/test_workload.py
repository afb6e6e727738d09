"""What is sent: images, whole requests, and an order that a seed decides."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from saccade.service.bench.images import ImageFile, read_images
from saccade.service.bench.traces import Arrival
from saccade.service.bench.workload import (
    ModelShare,
    RequestShape,
    Workload,
    endpoint_of,
    order_of,
    order_of_trace,
    workload_of,
)
from saccade.service.errors import BadParameter

IMAGES = tuple(ImageFile(f"{number}.png", "image/png", bytes([number]) * 10) for number in range(5))
ENDPOINT = endpoint_of("http://host:8000")


def mix(**weights: float) -> Workload:
    return workload_of(
        [ModelShare(model, weight, IMAGES) for model, weight in weights.items()], ENDPOINT, RequestShape()
    )


# Bodies


def test_folder_is_read_in_order_with_damaged_images_and_without_other_files(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("b.PNG", "a.jpg", "deep/c.webp", "truth.json", "notes"):
        (tmp_path / name).write_bytes(name.encode())

    images = read_images(tmp_path)

    assert [(image.name, image.media_type) for image in images] == [
        ("a.jpg", "image/jpeg"),
        ("b.PNG", "image/png"),
        ("deep/c.webp", "image/webp"),
    ]
    assert images[0].content == b"a.jpg"
    assert len(read_images(tmp_path, limit=2)) == 2


def test_folder_without_an_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadParameter, match=r"\.webp"):
        read_images(tmp_path)


def test_request_has_its_path_parameters_and_headers() -> None:
    shape = RequestShape(headers=(("X-Priority", "high"),), query=(("top_k", "3"), ("note", "a b")))
    workload = workload_of([ModelShare("a/b", 1.0, IMAGES[:1])], endpoint_of("https://host/prefix/"), shape)

    head = workload.items[0].head.decode().split("\r\n")
    assert head[0] == "POST /prefix/v1/models/a%2Fb/predict?top_k=3&note=a+b HTTP/1.1"
    assert {"Host: host", "Content-Type: image/png", "Content-Length: 10", "X-Priority: high"} <= set(head)
    assert head[-2:] == ["", ""]


@pytest.mark.parametrize(
    ("url", "authority", "is_tls"),
    [
        ("http://a", "a", False),
        ("http://a:8000/", "a:8000", False),
        ("https://a:443", "a", True),
        ("http://[::1]:8000", "[::1]:8000", False),
    ],
)
def test_url_names_an_endpoint(url: str, authority: str, is_tls: bool) -> None:
    endpoint = endpoint_of(url)

    assert (endpoint.authority, endpoint.is_tls, endpoint.prefix) == (authority, is_tls, "")


@pytest.mark.parametrize("url", ["a:8000", "ftp://a", "http://", "http://a:x", "http://u:p@a", "http://a?b=c", ""])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(BadParameter, match="looks like"):
        endpoint_of(url)


# Order


def test_models_are_asked_by_their_weight() -> None:
    workload = mix(often=3.0, seldom=1.0)

    counts = Counter(workload.items[number].model for number in order_of(workload, 8000, seed=1))

    assert counts["often"] == pytest.approx(6000, rel=0.05)


def test_every_image_comes_once_before_any_comes_twice() -> None:
    order = order_of(mix(a=1.0), 20, seed=1).tolist()

    rounds = [order[start : start + 5] for start in range(0, 20, 5)]
    assert [sorted(each) for each in rounds] == [[0, 1, 2, 3, 4]] * 4
    assert len({tuple(each) for each in rounds}) > 1


def test_seed_decides_the_order() -> None:
    workload = mix(a=1.0, b=2.0)

    assert order_of(workload, 100, 1).tolist() == order_of(workload, 100, 1).tolist()
    assert order_of(workload, 100, 1).tolist() != order_of(workload, 100, 2).tolist()


def test_trace_sends_the_models_and_images_that_it_names() -> None:
    workload = mix(a=1.0, b=1.0)
    trace = [Arrival(0.0, "b", "3.png"), Arrival(1.0, "a"), Arrival(2.0, "b", "gone.png"), Arrival(3.0)]

    order = order_of_trace(workload, trace, count=6, seed=0)

    asked = [workload.items[number] for number in order]
    assert (asked[2].model, asked[2].image) == ("b", "3.png")
    assert [asked[3].model, asked[4].model] == ["a", "b"]
    assert len(asked) == 6  # two of warm-up before them


def test_trace_of_another_model_is_refused() -> None:
    with pytest.raises(BadParameter, match=r"'c'.*a, b.*--mix"):
        order_of_trace(mix(a=1.0, b=1.0), [Arrival(0.0, "c")], 1, 0)
