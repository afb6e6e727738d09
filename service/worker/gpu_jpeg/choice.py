"""Decides which JPEG decoder serves, from measurements; one with unfaithful pixels never does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

JpegDecoderSetting = Literal["auto", "cpu", "gpu"]

# The share of a model input's pixels that must be within one level of the CPU path's, on every checked image. A
# library's own transform must keep the same bound against ours before its network is published.
FAITHFUL_SHARE = 0.999


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How near a device's pixels are to the CPU path's, for one preprocessing rule."""

    worst_share: float  # smallest share, over all images, of pixels within one level
    worst_image: str
    problem: str = ""  # what else went wrong, in one line


@dataclass(frozen=True, slots=True)
class DecoderFigures:
    """The measurements of one way of decoding on the device."""

    decoder: str
    images_per_s: float
    fidelity: Fidelity


@dataclass(frozen=True, slots=True)
class Choice:
    """The decoder that serves, or empty for the CPU's image threads, and the reason with its figures."""

    decoder: str
    reason: str


def choose_decoder(setting: JpegDecoderSetting, cpu_images_per_s: float, devices: Sequence[DecoderFigures]) -> Choice:
    """Chooses the fastest faithful decoder; with "gpu" it may also be slower than the CPU."""
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
    """Returns the reason why the decoder's pixels must not be served; empty when they may."""
    if fidelity.problem:
        return fidelity.problem
    if fidelity.worst_share < FAITHFUL_SHARE:
        return (
            f"{fidelity.worst_share:.4%} of the pixels of {fidelity.worst_image} are within one level of the CPU "
            f"path's, {FAITHFUL_SHARE:.1%} are needed"
        )
    return ""
