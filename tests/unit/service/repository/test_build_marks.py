"""Marks of builds: seen while they are renewed, gone afterwards, and never in the way."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

from saccade.models.contract.plans import PlanKey
from saccade.service.repository.build_marks import FRESH_S, MarkedBuild, build_marks
from saccade.service.repository.plans import PlanStore

KEY = PlanKey(
    onnx_sha256="a" * 64,
    runtime="tensorrt",
    runtime_version="11.4.0.12",
    capabilities=("SM90",),
    allowed_batch_sizes=(1,),
)


def test_running_build_says_where_and_how_far(tmp_path: Path) -> None:
    with MarkedBuild(tmp_path, "digits", 3, "fp16", KEY).shown() as build:
        build.tell("building", 0.25)
        (mark,) = build_marks(tmp_path, "digits", 3)

    assert (mark.variant, mark.place, mark.stage, mark.share) == ("fp16", KEY.place, "building", 0.25)
    assert (mark.host, mark.pid, mark.is_ours) == (socket.gethostname(), os.getpid(), True)
    assert build_marks(tmp_path, "digits", 3) == ()
    assert build_marks(tmp_path, "digits", 4) == ()


def test_mark_of_a_dead_builder_counts_no_more(tmp_path: Path) -> None:
    with MarkedBuild(tmp_path, "digits", 3, "fp16", KEY).shown():
        assert build_marks(tmp_path, "digits", 3, now=time.time() + FRESH_S / 2) != ()
        assert build_marks(tmp_path, "digits", 3, now=time.time() + FRESH_S + 1) == ()
        assert build_marks(tmp_path, "digits", 3, now=time.time() - 2 * FRESH_S) == (), "the clock was set back since"


def test_mark_is_no_plan(tmp_path: Path) -> None:
    with MarkedBuild(tmp_path, "digits", 3, "fp16", KEY).shown():
        assert PlanStore(tmp_path).survey("digits", 3).plans == ()
        assert PlanStore(tmp_path).survey("digits", 3).problems == ()


def test_damaged_mark_is_none(tmp_path: Path) -> None:
    place = tmp_path / "digits" / "3" / "fp16"
    place.mkdir(parents=True)
    (place / f".building-{KEY.place}.json").write_text("not json")

    assert build_marks(tmp_path, "digits", 3) == ()


def test_place_that_cannot_be_written_does_not_stop_the_build(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with MarkedBuild(tmp_path / "file", "digits", 3, "fp16", KEY).shown() as build:
        build.tell("building", 0.5)
