"""Exported programs as networks. Promises: the program's own answers, and no code from an archive ever runs."""

from __future__ import annotations

import io
import json
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from saccade.export.errors import SourceError
from saccade.export.sources import load_network, source_facts
from saccade.models.contract.specs import PreprocessSpec, Task, TaskSpec
from tests.support.network_requests import network_request, source_spec

BATCH = torch.export.Dim("batch", min=1, max=64)


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.convolution(images)
        return features.mean((2, 3))


class Sum(nn.Module):
    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return first + second


def saved(path: Path, network: nn.Module, *examples: Tensor, dynamic: Any = ({0: BATCH},)) -> Path:
    program = torch.export.export(network.eval(), examples, dynamic_shapes=dynamic)
    torch.export.save(program, path)
    return path


@pytest.fixture
def program(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return saved(tmp_path / "net.pt2", Classifier(), torch.zeros(2, 3, 8, 8))


def tampered(path: Path, change: Callable[[str, bytes], bytes]) -> Path:
    """A copy with changed members."""
    copy = path.with_name("evil.pt2")
    with zipfile.ZipFile(path) as original, zipfile.ZipFile(copy, "w") as archive:
        for name in original.namelist():
            archive.writestr(name, change(name, original.read(name)))
    return copy


def test_facts_come_from_the_program(program: Path) -> None:
    facts = source_facts(source_spec("pt2"), program)

    assert facts.task == TaskSpec(task=Task.CLASSIFY, top_k=4)
    assert facts.labels == ("class 0", "class 1", "class 2", "class 3")
    assert facts.preprocess == PreprocessSpec(width=8, height=8, fit="stretch")


def test_loaded_program_answers_any_batch_and_is_traced_again(program: Path) -> None:
    network = load_network(network_request("pt2", program))
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = torch.export.load(program).module()(images)

    with torch.no_grad():
        again = torch.export.export(network.module.eval(), (images[:2],), dynamic_shapes=({0: BATCH},), strict=False)

    assert network.not_batchable_reason == ""
    assert torch.equal(network.module(images), expected)
    assert torch.equal(again.module()(images), expected)


def test_program_of_one_image_is_said(tmp_path: Path) -> None:
    path = saved(tmp_path / "net.pt2", Classifier(), torch.zeros(1, 3, 8, 8), dynamic=None)

    assert load_network(network_request("pt2", path)).not_batchable_reason == "net.pt2 takes exactly one image"


@pytest.mark.parametrize(
    ("network", "examples", "text"),
    [
        (Sum(), [torch.zeros(1, 3, 8, 8)] * 2, r"has 2 inputs: float32 \(1, 3, 8, 8\); float32"),
        (nn.Identity(), [torch.zeros(1, 3, 8, 8).half()], r"takes float16 \(1, 3, 8, 8\).*from a float32 network"),
        (nn.Identity(), [torch.zeros(1, 3, 8, 8, dtype=torch.uint8)], r"takes uint8"),
        (nn.Identity(), [torch.zeros(1, 8, 8, 3)], "channels come last"),
        (nn.Identity(), [torch.zeros(1, 12)], r"takes float32 \(1, 12\)"),
        (nn.Identity(), [torch.zeros(4, 3, 8, 8)], "takes exactly 4 images at once"),
    ],
)
def test_input_that_is_no_image_is_named(tmp_path: Path, network: nn.Module, examples: list[Tensor], text: str) -> None:
    path = saved(tmp_path / "net.pt2", network, *examples, dynamic=None)

    with pytest.raises(SourceError, match=text):
        source_facts(source_spec("pt2"), path)


def test_wrong_task_and_size_are_named(program: Path) -> None:
    with pytest.raises(SourceError, match=r"returns \[\(None, 4\)\]; task: segment"):
        load_network(network_request("pt2", program, task=TaskSpec(task=Task.SEGMENT)))
    with pytest.raises(SourceError, match="with 3 labels"):
        load_network(network_request("pt2", program, classes=3))
    with pytest.raises(SourceError, match="leave width and height out"):
        load_network(network_request("pt2", program, width=16))


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("net.pt2", b"no archive", "not a .pt2 archive"),
        ("absent.pt2", None, "cannot read weights"),
        (None, None, "needs `weights: network.pt2`"),
    ],
)
def test_what_is_no_archive_is_named(tmp_path: Path, name: str | None, content: bytes | None, text: str) -> None:
    path = None if name is None else tmp_path / name
    if path is not None and content is not None:
        path.write_bytes(content)

    with pytest.raises(SourceError, match=text):
        source_facts(source_spec("pt2"), path)


class Trap:
    """Unpickling it writes a file."""

    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.sprung,))


def pickled_weight(trap: Trap) -> Callable[[str, bytes], bytes]:
    def change(name: str, content: bytes) -> bytes:
        if name.endswith("weights_config.json"):
            config = json.loads(content)
            config["config"]["convolution.weight"]["use_pickle"] = True
            return json.dumps(config).encode()
        return _saved_by_torch(trap) if name.endswith("weight_0") else content

    return change


def pickled_example(trap: Trap) -> Callable[[str, bytes], bytes]:
    return lambda name, content: _saved_by_torch(trap) if "sample_inputs" in name else content


def foreign_operator(trap: Trap) -> Callable[[str, bytes], bytes]:
    return lambda name, content: content.replace(b"torch.ops.aten.mean.dim", b"torch.os.system")


def code_as_size(trap: Trap) -> Callable[[str, bytes], bytes]:
    return lambda name, content: re.sub(rb'"expr_str": "[^"]*"', b'"expr_str": "open(chr(97))"', content)


@pytest.mark.parametrize(
    ("attack", "text"),
    [
        (pickled_weight, "keeps 'convolution.weight' as a pickle"),
        (pickled_example, "a pickle that torch's safe reader refuses"),
        (foreign_operator, "calls 'torch.os.system', which is no operator of torch"),
        (code_as_size, r"has a size 'open\(chr\(97\)\)' that is no arithmetic"),
    ],
)
def test_archive_that_could_run_code_is_refused_unopened(
    program: Path, tmp_path: Path, attack: Callable[[Trap], Callable[[str, bytes], bytes]], text: str
) -> None:
    sprung = tmp_path / "sprung"
    evil = tampered(program, attack(Trap(sprung)))

    with pytest.raises(SourceError, match=text):
        source_facts(source_spec("pt2"), evil)

    assert not sprung.exists()


def test_trap_of_these_tests_is_a_real_one(program: Path, tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"

    with pytest.raises(Exception, match="not an instance of"):  # after the pickle was run
        torch.export.load(tampered(program, pickled_weight(Trap(sprung))))

    assert sprung.exists()


def test_compiled_libraries_are_refused(program: Path) -> None:
    with zipfile.ZipFile(program, "a") as archive:
        archive.writestr("net/data/aotinductor/model/wrapper.so", b"\x7fELF")

    with pytest.raises(SourceError, match="holds compiled code"):
        source_facts(source_spec("pt2"), program)


def _saved_by_torch(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, pickle_protocol=pickle.HIGHEST_PROTOCOL)
    return buffer.getvalue()
