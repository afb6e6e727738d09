"""Checkpoints. Promises: wrappers' prefixes do not matter, misfits are named in order of use, pickles stay closed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from saccade.export.errors import SourceError
from saccade.export.sources.weights import load_weights, shapes_of, state_dict_of, weights_digest


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Linear(4, 2))


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.", "module._orig_mod."])
def test_prefix_of_training_wrappers_is_left_out(tmp_path: Path, prefix: str) -> None:
    trained = {name: torch.ones_like(tensor) for name, tensor in network().state_dict().items()}
    save_file({f"{prefix}{name}": tensor for name, tensor in trained.items()}, tmp_path / "w.safetensors")
    target = network()

    load_weights(target, tmp_path / "w.safetensors")

    assert all(torch.equal(tensor, trained[name]) for name, tensor in target.state_dict().items())
    assert shapes_of(tmp_path / "w.safetensors")["2.weight"] == (2, 4)


def test_prefix_that_is_the_network_s_own_is_kept(tmp_path: Path) -> None:
    target = nn.ModuleDict({"model": nn.Linear(2, 2)})
    save_file(
        {name: torch.ones_like(tensor) for name, tensor in target.state_dict().items()}, tmp_path / "w.safetensors"
    )

    load_weights(target, tmp_path / "w.safetensors")

    assert bool(target["model"].weight.eq(1).all())


def test_prefix_of_some_names_only_is_a_misfit(tmp_path: Path) -> None:
    tensors = network().state_dict()
    save_file(
        {f"module.{name}" if name == "0.bias" else name: each for name, each in tensors.items()},
        tmp_path / "w.safetensors",
    )

    with pytest.raises(SourceError, match=r"0\.bias is missing; module\.0\.bias is not part of the network"):
        load_weights(network(), tmp_path / "w.safetensors")


def test_first_three_misfits_are_named_wrong_shapes_first(tmp_path: Path) -> None:
    tensors = network().state_dict()
    tensors["2.weight"] = torch.zeros(7, 4)
    del tensors["0.weight"], tensors["0.bias"], tensors["1.bias"]
    save_file(tensors, tmp_path / "w.safetensors")

    with pytest.raises(
        SourceError,
        match=r"2\.weight has shape \(7, 4\), the network's is \(2, 4\); 0\.weight is missing; 0\.bias is missing "
        r"and 1 more\. Check",
    ):
        load_weights(network(), tmp_path / "w.safetensors")


def test_shards_of_a_directory_are_one_checkpoint(tmp_path: Path) -> None:
    tensors = list(network().state_dict().items())
    save_file(dict(tensors[:3]), tmp_path / "model-00001-of-00002.safetensors")
    save_file(dict(tensors[3:]), tmp_path / "model-00002-of-00002.safetensors")

    load_weights(network(), tmp_path)

    assert set(state_dict_of(tmp_path)) == {name for name, _ in tensors}


@pytest.mark.parametrize("name", ["net.pth", "net.pt", "pytorch_model.bin", "last.ckpt"])
def test_pickle_is_refused_with_how_to_convert(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04.")

    with pytest.raises(SourceError, match=r"is a pickle.*safetensors\.torch\.save_file"):
        load_weights(network(), tmp_path / name)


def test_directory_without_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")

    with pytest.raises(SourceError, match=r"holds no \.safetensors file; convert it once"):
        load_weights(network(), tmp_path)


def test_digest_of_a_directory_covers_every_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    before = weights_digest(tmp_path)

    (tmp_path / "config.json").write_text("{ }")

    assert weights_digest(tmp_path) != before
