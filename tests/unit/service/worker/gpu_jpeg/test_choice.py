"""Which decoder serves: measured, faithful, fastest; every no has its reason."""

from __future__ import annotations

import pytest

from saccade.service.worker.gpu_jpeg.choice import DecoderFigures, Fidelity, JpegDecoderSetting, choose_decoder

FAITHFUL = Fidelity(0.9995, "4:2:0")
UNFAITHFUL = Fidelity(0.98, "4:2:0")


def test_faster_device_is_chosen_with_both_figures_in_the_reason() -> None:
    choice = choose_decoder("auto", 3000.0, [DecoderFigures("hardware", 9000.0, FAITHFUL)])

    assert choice.decoder == "hardware"
    assert choice.reason == "hardware decodes 9000 images/s, the image threads 3000"


@pytest.mark.parametrize("cpu", [9000.0, 9001.0])
def test_device_that_is_not_faster_leaves_jpegs_to_the_cpu(cpu: float) -> None:
    choice = choose_decoder("auto", cpu, [DecoderFigures("hardware", 9000.0, FAITHFUL)])

    assert choice.decoder == ""
    assert f"the image threads {cpu:.0f}" in choice.reason


def test_fastest_faithful_one_is_chosen() -> None:
    devices = [
        DecoderFigures("hardware", 9000.0, UNFAITHFUL),
        DecoderFigures("hybrid", 5000.0, FAITHFUL),
        DecoderFigures("gpu", 6000.0, FAITHFUL),
    ]

    assert choose_decoder("auto", 3000.0, devices).decoder == "gpu"


@pytest.mark.parametrize("setting", ["auto", "gpu"])
def test_unfaithful_pixels_never_serve(setting: JpegDecoderSetting) -> None:
    choice = choose_decoder(setting, 1.0, [DecoderFigures("hardware", 9000.0, UNFAITHFUL)])

    assert choice.decoder == ""
    assert "98.0000% of the pixels of 4:2:0" in choice.reason
    assert "99.9% are needed" in choice.reason


@pytest.mark.parametrize("setting", ["auto", "gpu"])
def test_bad_manners_never_serve(setting: JpegDecoderSetting) -> None:
    rude = Fidelity(1.0, "grey", "takes noise for an image")

    choice = choose_decoder(setting, 1.0, [DecoderFigures("hardware", 9000.0, rude)])

    assert (choice.decoder, choice.reason) == ("", "hardware: takes noise for an image")


def test_reason_that_all_share_is_said_once() -> None:
    broken = Fidelity(0.0, "", "no driver")

    choice = choose_decoder("auto", 1.0, [DecoderFigures(name, 0.0, broken) for name in ("hardware", "hybrid")])

    assert choice.reason == "hardware, hybrid: no driver"


def test_gpu_is_taken_at_its_word_when_it_is_slower() -> None:
    assert choose_decoder("gpu", 3000.0, [DecoderFigures("gpu", 10.0, FAITHFUL)]).decoder == "gpu"


def test_cpu_asks_no_device() -> None:
    assert choose_decoder("cpu", 1.0, [DecoderFigures("gpu", 10.0, FAITHFUL)]).decoder == ""


def test_without_any_decoder_the_cpu_decodes() -> None:
    assert choose_decoder("auto", 1.0, []).reason == "no decoder on this device"
