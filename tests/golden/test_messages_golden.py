"""The wire form of every message between processes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import get_args

import msgspec

from saccade.service.ipc import messages
from saccade.service.ipc.frames import frame_of
from saccade.service.ipc.messages import AnyMessage, Catalog, DeviceStatus, InstanceStatus, VersionStatus

DEVICE = DeviceStatus("cpu", True, 1, "/run/worker.sock")
INSTANCE = InstanceStatus("cpu", 7, "ready", "", "int8-cpu", "onnxruntime", "CPUExecutionProvider")
SPEED = messages.SpeedStatus("int8-cpu", "fp32", 1.6, 1.5, 1.7, 0.95, 40, "1.60 times as fast as fp32", True)
VERSION = VersionStatus(
    "digits", 3, "/models/digits/3", "ab" * 32, "ready", "", "int8-cpu", (INSTANCE,), choice="why", speeds=(SPEED,)
)

FACTS = messages.DeviceFacts("NVIDIA H200", "SM90", "tensorrt", "11.4.0.12", "13.0", 150_000_000_000)

EXAMPLES: tuple[AnyMessage, ...] = (
    messages.Hello(64, 33_554_432),
    messages.Submit(1, 2, 7, 1000.5, 999.25),
    messages.Cancel(1),
    messages.Probe(4),
    messages.Done(1, messages.DONE_OK, 0.5, 0.25, 8, batch=17),
    messages.Alive(4),
    messages.Load(7, "digits", 3, "int8-cpu", "/models/digits/3", "a" * 64, (1, 2, 4, 8), "onnxruntime"),
    messages.Unload(7),
    messages.Stop(),
    messages.WorkerReady("/run/worker.sock", 4242, FACTS),
    messages.InstanceState(7, "failed", "no memory", "", 1.5),
    messages.Unloaded(7),
    Catalog(12, (DEVICE,), (VERSION,), False),
    messages.LogLevel("debug"),
    messages.ProcessesUse((messages.ProcessUse("worker", 12.5, 300_000_000, 40),)),
    messages.Listen(),
    messages.StopAdmitting(),
    messages.ApiReady(4243),
    messages.CatalogApplied(12),
    messages.DesireVersion("digits", 3),
    messages.Used((messages.Usage("digits", 3, 2, 1000.5),)),
    messages.Answers((messages.Answered("digits", 3, 40, 2, 1),)),
    messages.Tallied((messages.VersionTally("digits", 3, 5, 40, 1, ((90, 39), (95, 1)), 4, 3.5),)),
    messages.Configure(b'{"port":8000}', "api-0", ""),
)


def _example(message: AnyMessage) -> str:
    frame = frame_of([message])
    plain = msgspec.json.encode(msgspec.msgpack.decode(frame[4:])).decode()
    return f"{plain}\n  {frame.hex()}\n"


def _statuses() -> str:
    names = [name for name in vars(messages) if re.fullmatch(r"DONE_[A-Z_]+", name)]
    return "".join(f"{name} = {getattr(messages, name)}\n" for name in names)


def test_every_message_has_an_example() -> None:
    assert {type(message) for message in EXAMPLES} == set(get_args(AnyMessage))


def test_wire_form_of_messages_is_as_stored(check_golden: Callable[[str, str], None]) -> None:
    check_golden("messages.txt", "".join(_example(message) for message in EXAMPLES) + _statuses())
