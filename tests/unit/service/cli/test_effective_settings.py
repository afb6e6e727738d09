"""What `saccade serve --print-config` prints starts the same server again."""

from __future__ import annotations

from pathlib import Path

from saccade.service.cli.effective_settings import effective_lines
from saccade.service.settings import Settings, resolved, settings_from

GIVEN = {
    "SACCADE_TUNING": "off",
    "SACCADE_SLOTS": "32",
    "SACCADE_TRUSTED_KEYS": "/keys/a.pem:/keys/b.pem",
    "SACCADE_MAX_QUEUE_DELAY_MS": "1.5",
    "SACCADE_API_KEYS_FILE": "/etc/saccade/keys",
}


def blocks(lines: list[str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for line in lines:
        if line.startswith("# "):
            block = found.setdefault(line[2:], {})
        else:
            name, _, value = line.partition("=")
            block[name] = value
    return found


def test_every_setting_is_there_once_under_who_chose_it() -> None:
    found = blocks(list(effective_lines(settings_from(GIVEN), cores=4)))

    assert list(found) == ["given", "chosen for 4 cores", "defaults"]
    assert found["given"] == GIVEN
    assert found["chosen for 4 cores"]["SACCADE_API_PROCESSES"] == "2"
    assert found["defaults"]["SACCADE_PORT"] == "8000"
    names = [name for block in found.values() for name in block]
    assert sorted(names) == sorted(f"SACCADE_{name.upper()}" for name in Settings.model_fields)


def test_what_is_printed_starts_the_same_server(tmp_path: Path) -> None:
    settings = settings_from(GIVEN)
    printed = {
        name: value for block in blocks(list(effective_lines(settings, 4))).values() for name, value in block.items()
    }

    again = settings_from({name: value for name, value in printed.items() if value})

    assert again == resolved(settings, 4)


def test_number_that_the_start_may_measure_is_said_to_be_one() -> None:
    assert any("SACCADE_TUNING" in line for line in effective_lines(settings_from({}), 2) if line.startswith("#"))
