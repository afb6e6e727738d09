"""Which decoder serves. Promises: pure; the reason names the figures; a device that is not faithful never serves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

JpegDecoderSetting = Literal["auto", "cpu", "gpu"]

# Of a model input's pixels within one level of the CPU path's, on every checked image: the bound that a library's own
# transform must keep against ours before its network is published, so a device may not be further away than that.
FAITHFUL_SHARE = 0.999


@dataclass(frozen=True, slots=True)
class Fidelity:
    """A device's pixels against the CPU path's, for one preprocessing rule."""

    worst_share: float  # of pixels within one level, of the image where it is smallest
    worst_image: str
    problem: str = ""  # what went wrong apart from pixels, in one line


@dataclass(frozen=True, slots=True)
class DeviceFigures:
    """One way of decoding on the device, measured."""

    decoder: str
    images_per_s: float
    fidelity: Fidelity


@dataclass(frozen=True, slots=True)
class Choice:
    """`decoder` is one of the measured ones; empty: the CPU's image threads."""

    decoder: str
    reason: str


def choose_decoder(setting: JpegDecoderSetting, cpu_images_per_s: float, devices: Sequence[DeviceFigures]) -> Choice:
    """The fastest faithful decoder. With "gpu" the CPU's speed does not count; its pixels always do."""
    if setting == "cpu":
        return Choice("", "jpeg_decoder is cpu")
    faithful = [device for device in devices if not unfaithfulness(device.fidelity)]
    if not faithful:
        decoders_by_reason: dict[str, list[str]] = {}
        for device in devices:
            decoders_by_reason.setdefault(unfaithfulness(device.fidelity), []).append(device.decoder)
        reasons = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in decoders_by_reason.items())
        return Choice("", reasons or "no decoder on this device")
    best = max(faithful, key=lambda device: device.images_per_s)
    figures = f"{best.decoder} decodes {best.images_per_s:.0f} images/s, the image threads {cpu_images_per_s:.0f}"
    if setting == "auto" and best.images_per_s <= cpu_images_per_s:
        return Choice("", figures)
    return Choice(best.decoder, figures)


def unfaithfulness(fidelity: Fidelity) -> str:
    """Why its pixels must not be served; empty: they may."""
    if fidelity.problem:
        return fidelity.problem
    if fidelity.worst_share < FAITHFUL_SHARE:
        return (
            f"{fidelity.worst_share:.4%} of the pixels of {fidelity.worst_image} are within one level of the CPU "
            f"path's, {FAITHFUL_SHARE:.1%} are needed"
        )
    return ""
