"""Pickled checkpoints. Promises: refused with the command that works, and never opened."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from saccade.export.errors import SourceError
from saccade.export.sources.pickles import refuse_pickle


def archive(path: Path, content: bytes, name: str = "best/data.pkl") -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(name, content)
    return path


@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("ultralytics.nn.tasks", "yolo export model=best.pt format=onnx"),
        ("models.yolo", "python export.py --weights best.pt --include onnx"),
    ],
)
def test_network_of_a_library_is_told_how_to_export_it(tmp_path: Path, module: str, command: str) -> None:
    names_a_class = f"c{module}\nDetectionModel\n.".encode()  # opening it would import the module

    with pytest.raises(SourceError, match=command.replace(".", r"\.")):
        refuse_pickle(archive(tmp_path / "best.pt", names_a_class))


def test_torchscript_is_refused_by_name(tmp_path: Path) -> None:
    path = archive(tmp_path / "net.pt", b"", "net/constants.pkl")  # only torch.jit.save writes such a member

    with pytest.raises(SourceError, match="is TorchScript, which is not taken"):
        refuse_pickle(path)


def test_others_are_left_to_who_reads_tensors(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "plain.pt")
    (tmp_path / "text.onnx").write_bytes(b"no archive")

    refuse_pickle(tmp_path / "plain.pt")
    refuse_pickle(tmp_path / "text.onnx")
    refuse_pickle(archive(tmp_path / "odd.pt", b"\xff\xff" + pickle.dumps(1)))
    refuse_pickle(tmp_path / "absent.pt")
