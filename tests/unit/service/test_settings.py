"""Settings: read once, complete; an unknown name or a bad value refuses to start and is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from saccade.service.errors import SettingsError
from saccade.service.settings import PREFIX, Settings, core_count, cores_of_quota, resolved, settings_from


def test_defaults_are_valid_without_any_environment() -> None:
    assert settings_from({}) == Settings()


def test_values_are_read_by_their_prefixed_names() -> None:
    settings = settings_from({"SACCADE_PORT": "0", "SACCADE_REPOSITORY": "/models", "SACCADE_ALLOW_SPINNING": "true"})

    assert (settings.port, settings.repository, settings.allow_spinning) == (0, Path("/models"), True)


def test_option_wins_over_the_environment() -> None:
    assert settings_from({"SACCADE_PORT": "9000"}, {"port": "9001"}).port == 9001


def test_names_of_other_programs_are_left_alone() -> None:
    assert settings_from({"PATH": "/bin", "saccade_port": "1"}) == Settings()


def test_pins_are_read_by_model() -> None:
    settings = settings_from({"SACCADE_SERVE_VERSIONS": "digits-detector=3, segmenter=17"})

    assert settings.pins == {"digits-detector": 3, "segmenter": 17}


@pytest.mark.parametrize("name", ["SACCADE_PROT", "SACCADE_", "SACCADE_SLOTS_"])
def test_unknown_name_is_refused_with_those_that_exist(name: str) -> None:
    with pytest.raises(SettingsError, match=rf"unknown setting {name}; known settings: .*SACCADE_PORT"):
        settings_from({name: "1"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "eighty"),
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("BACKEND", "tensorflow"),
        ("DEVICE", "gpu"),
        ("DEVICE", "cuda"),
        ("DEVICE", "cpu:a"),
        ("DEVICE", "cuda:0,cuda:0"),
        ("DEVICE", "cuda:0,"),
        ("DEVICE", "MIG-1"),
        ("PLACEMENT", "everywhere"),
        ("DEVICE_MEMORY_LIMIT_MB", "-1"),
        ("SLOTS", "0"),
        ("MAX_SLOT_BYTES", "100"),
        ("MAX_QUEUE_DELAY_MS", "-1"),
        ("MAX_QUEUE_DELAY_MS", "nan"),
        ("HANG_TIMEOUT_MS", "inf"),
        ("DEFAULT_DEADLINE_MS", "0"),
        ("VERSIONS_PER_MODEL", "0"),
        ("SERVE_VERSIONS", "detector"),
        ("SERVE_VERSIONS", "detector=0"),
        ("SERVE_VERSIONS", "detector=1,detector=2"),
        ("SERVE_VERSIONS", "detector=01"),
        ("SERVE_VERSIONS", "detector=20261129013200123456"),
        ("REPOSITORY_POLL_MS", "10"),
        ("ALLOW_SPINNING", "maybe"),
        ("LOG_FORMAT", "xml"),
        ("REQUIRE_SIGNATURE", "perhaps"),
        ("TRUSTED_KEYS", ""),
        ("TRUSTED_KEYS", "/keys/a.pem:"),
    ],
)
def test_bad_value_names_its_setting(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"{PREFIX}{name}: "):
        settings_from({PREFIX + name: value})


def test_all_bad_values_are_named_at_once() -> None:
    with pytest.raises(SettingsError, match=r"SACCADE_PORT: .*; SACCADE_SLOTS: "):
        settings_from({"SACCADE_PORT": "x", "SACCADE_SLOTS": "0"})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"SACCADE_DEFAULT_DEADLINE_MS": "70000"}, "default_deadline_ms must not exceed max_deadline_ms"),
        ({"SACCADE_MAX_BODY_BYTES": "900000000"}, "max_body_bytes must not exceed max_buffered_bytes"),
    ],
)
def test_bounds_that_contradict_each_other_are_refused(values: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        settings_from(values)


def test_trusted_keys_are_paths_separated_by_colons_and_survive_the_way_to_a_child() -> None:
    settings = settings_from({"SACCADE_TRUSTED_KEYS": "/keys/a.pem:/keys/more", "SACCADE_REQUIRE_SIGNATURE": "true"})

    assert settings.trusted_keys == (Path("/keys/a.pem"), Path("/keys/more"))
    assert Settings.model_validate_json(settings.model_dump_json()) == settings


def test_required_signatures_without_trusted_keys_refuse_to_start() -> None:
    with pytest.raises(SettingsError, match="SACCADE_REQUIRE_SIGNATURE needs SACCADE_TRUSTED_KEYS"):
        settings_from({"SACCADE_REQUIRE_SIGNATURE": "true"})


def test_signing_key_of_the_exporter_is_none_of_the_servers_settings() -> None:
    """One shell may publish and serve."""
    environment = {"SACCADE_SIGN_KEY_FILE": "/keys/signing-key.pem", "SACCADE_SIGN_KEY_PASSWORD": "secret"}

    assert settings_from(environment) == Settings()


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]  # the point of the test


def test_every_setting_is_described() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(("cores", "processes", "decode"), [(1, 1, 2), (2, 2, 2), (4, 2, 2), (16, 4, 4)])
def test_numbers_left_to_the_machine_are_filled_in(cores: int, processes: int, decode: int) -> None:
    settings = resolved(Settings(), cores)

    assert (settings.device_threads, settings.api_processes, settings.decode_threads) == (cores, processes, decode)


def test_devices_are_named_in_order_and_share_the_cores() -> None:
    settings = resolved(settings_from({"SACCADE_DEVICE": "cuda:1, cuda:0,cuda:2"}), 16)

    assert settings.devices == ("cuda:1", "cuda:0", "cuda:2")
    assert (settings.device, settings.device_threads) == ("cuda:1,cuda:0,cuda:2", 5)
    assert resolved(Settings(device="cuda:0,cuda:1"), 1).device_threads == 1


def test_device_that_is_none_is_refused_with_what_is_allowed() -> None:
    with pytest.raises(
        SettingsError,
        match=r"SACCADE_DEVICE: .*'tpu:0' is not a device; allowed: cpu, cpu:<number> for one of several workers, "
        r"cuda:<index>",
    ):
        settings_from({"SACCADE_DEVICE": "cuda:0,tpu:0"})


def test_numbers_that_were_given_stay() -> None:
    given = Settings(device_threads=3, api_processes=2, decode_threads=5, inline_decode_pixels=7)

    assert resolved(given, 16) == given


@pytest.mark.parametrize(("api_processes", "cores", "pixels"), [(0, 2, 250_000), (0, 16, 40_000), (16, 16, 250_000)])
def test_images_need_no_thread_where_handing_over_costs_more(api_processes: int, cores: int, pixels: int) -> None:
    assert resolved(Settings(api_processes=api_processes), cores).inline_decode_pixels == pixels


def test_core_count_is_what_this_process_may_use() -> None:
    assert core_count() >= 1


@pytest.mark.parametrize(
    ("cpu_max", "cores"),
    [("max 100000\n", None), ("200000 100000\n", 2), ("50000 100000\n", 1), ("350000 100000\n", 4)],
)
def test_containers_cpu_limit_is_whole_cores(cpu_max: str, cores: int | None) -> None:
    assert cores_of_quota(cpu_max) == cores


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("off", ()),
        ("", ()),
        ("auto", None),
        ("fp32,int8-cpu", ("fp32", "int8-cpu")),
        (" fp32 , tiny", ("fp32", "tiny")),
    ],
)
def test_ladder_is_off_by_figures_or_by_name(text: str, names: tuple[str, ...] | None) -> None:
    settings = settings_from({"SACCADE_LADDER": text})

    assert settings.ladder_names == names
    assert settings.has_ladder is (names != ())
    assert settings_from({}, settings.model_dump(mode="json")) == settings, "children get it as JSON"


@pytest.mark.parametrize("text", ["fp32,fp32", "auto,fp32", "fp32,", "off,auto"])
def test_a_ladder_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="SACCADE_LADDER"):
        settings_from({"SACCADE_LADDER": text})


@pytest.mark.parametrize("text", ["1e-9", "-1", "3600001"])
def test_an_objective_that_nothing_can_meet_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"OBJECTIVE_MS must be 0, or a number between 1 and 3600000 ms"):
        settings_from({"SACCADE_OBJECTIVE_MS": text})

    assert [settings_from({"SACCADE_OBJECTIVE_MS": good}).objective_ms for good in ("0", "1")] == [0.0, 1.0]


def test_a_ladder_by_name_begins_with_the_variant_that_is_served() -> None:
    with pytest.raises(SettingsError, match="ladder begins with fp32"):
        settings_from({"SACCADE_LADDER": "fp32,int8-cpu", "SACCADE_VARIANT": "int8-cpu"})

    assert settings_from({"SACCADE_LADDER": "fp32,int8-cpu", "SACCADE_VARIANT": "fp32"}).has_ladder


def test_pinned_models_are_names() -> None:
    assert settings_from({"SACCADE_PINNED_MODELS": "first, second"}).pinned == {"first", "second"}
    assert settings_from({}).pinned == frozenset()


def test_shares_are_read_by_model() -> None:
    assert settings_from({"SACCADE_DEVICE_SHARES": "detector=2,digits=0.5"}).shares == {"detector": 2.0, "digits": 0.5}
    assert settings_from({}).shares == {}


@pytest.mark.parametrize("value", ["detector", "detector=", "=2", "detector=0", "detector=nan", "a=1,a=2", "a=1;b=2"])
def test_shares_that_are_none_refuse_to_start(value: str) -> None:
    with pytest.raises(SettingsError, match=r"SACCADE_DEVICE_SHARES: .*MODEL=SHARE"):
        settings_from({"SACCADE_DEVICE_SHARES": value})


def test_limit_per_key_without_keys_refuses_to_start() -> None:
    with pytest.raises(SettingsError, match="SACCADE_API_KEYS_FILE"):
        settings_from({"SACCADE_MAX_CONCURRENT_PER_KEY": "2"})
