"""Settings: precedence, bounds, and errors that name the setting."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from config import settings as settings_module
from config.broker import KAFKA_VERSION, _server_properties
from config.settings import PRESETS, Settings, SettingsError, load_settings


def test_flags_win_over_the_environment_which_wins_over_the_preset_which_wins_over_defaults(monkeypatch):
    monkeypatch.setenv("NEARSHELF_PRESET", "throughput")
    preset = yaml.safe_load((PRESETS / "throughput.yaml").read_text())
    default = Settings.model_fields["batch_rows"].default
    assert preset["batch_rows"] != default
    assert load_settings().batch_rows == preset["batch_rows"]
    monkeypatch.setenv("NEARSHELF_BATCH_ROWS", "77")
    assert load_settings().batch_rows == 77
    assert load_settings(batch_rows=78).batch_rows == 78
    assert load_settings(preset="latency").batch_rows == 77
    assert load_settings().app_id == "nearshelf"


def test_a_flag_that_was_not_given_leaves_the_environment_in_force(monkeypatch):
    monkeypatch.setenv("NEARSHELF_BATCH_ROWS", "77")
    assert load_settings(batch_rows=None).batch_rows == 77


@pytest.mark.parametrize("preset", [path.stem for path in PRESETS.glob("*.yaml")])
def test_every_preset_is_valid_and_changes_something(preset):
    changed = load_settings(preset=preset).model_dump(exclude={"preset"})
    assert changed != load_settings().model_dump(exclude={"preset"})


def test_every_setting_says_what_it_is_and_every_bounded_queue_has_a_name():
    for name, field in Settings.model_fields.items():
        assert field.description, name
        if name.endswith("_ms"):
            assert field.description.endswith("ms") or "ms;" in field.description or ", ms" in field.description, name
    assert {"batch_rows", "batch_bytes", "batch_age_ms", "backlog_rows"} <= Settings.model_fields.keys()


@pytest.mark.parametrize(
    "given, message",
    [
        ({"batch_rows": "many"}, "batch_rows: .*integer.*'many'.*NEARSHELF_BATCH_ROWS"),
        ({"batch_rows": 0}, "batch_rows: .*greater than or equal to 1.*was 0"),
        ({"app_id": "two words"}, "app_id: "),
        ({"batch_row": 1}, "batch_row is no setting. Did you mean batch_rows"),
        ({"preset": "fast"}, "preset must be one of latency, throughput; was 'fast'"),
        ({"heartbeat_ms": 4000}, "heartbeat_ms must be at most a third of session_timeout_ms .6000., was 4000"),
        ({"demand_buckets": 7}, "demand_buckets must divide demand_window_ms"),
    ],
)
def test_a_wrong_setting_is_named_with_what_was_expected(given, message):
    with pytest.raises(SettingsError, match=message):
        load_settings(**given)


def test_a_misspelt_environment_variable_is_not_passed_over(monkeypatch):
    monkeypatch.setenv("NEARSHELF_BATCH_ROW", "1")
    with pytest.raises(SettingsError, match=r"NEARSHELF_BATCH_ROW is no setting\. Did you mean NEARSHELF_BATCH_ROWS"):
        load_settings()


def test_settings_never_change():
    with pytest.raises(ValueError, match="frozen"):
        load_settings().batch_rows = 1


def test_without_a_running_broker_the_usual_address_is_assumed(tmp_path):
    assert load_settings(data_directory=tmp_path).bootstrap_servers == settings_module.DEFAULT_BOOTSTRAP


def test_the_data_directory_is_the_same_wherever_a_command_runs(tmp_path):
    """A second, empty broker would start in silence if it followed the current directory."""
    command = [sys.executable, "-m", "streams.cli", "settings", "--json"]
    environment = {"PATH": "/nowhere", "HOME": str(tmp_path), "PYTHONPATH": str(settings_module.CHECKOUT)}
    found = [
        json.loads(subprocess.run(command, cwd=place, env=environment, capture_output=True, check=True).stdout)
        for place in (settings_module.CHECKOUT, tmp_path)
    ]
    assert found[0]["data_directory"] == found[1]["data_directory"] == str(settings_module.CHECKOUT / "var")


def test_a_data_directory_that_is_given_is_taken_from_the_current_directory_once():
    assert load_settings(data_directory="here").data_directory == Path.cwd() / "here"


def test_an_address_that_is_given_wins_over_the_local_broker(tmp_path):
    assert load_settings(data_directory=tmp_path, bootstrap_servers="kafka:1").bootstrap_servers == "kafka:1"


def test_kafka_in_docker_is_set_up_like_the_local_one():
    """Every property but addresses and paths stands in compose.yaml with the same value, and nothing else does."""
    local = dict(line.split("=", 1) for line in _server_properties(1, 2, "data").splitlines() if line[0] != "#")
    service = yaml.safe_load((PRESETS.parent / "compose.yaml").read_text())["services"]["kafka"]
    docker = {name.removeprefix("KAFKA_"): str(value) for name, value in service["environment"].items()}
    assert docker.pop("HEAP_OPTS")
    assert service["image"].endswith(f":{KAFKA_VERSION}")
    assert docker.keys() == {name.replace(".", "_").upper() for name in local}
    of_the_place = {"controller.quorum.voters", "listeners", "advertised.listeners", "log.dirs"}
    for name in local.keys() - of_the_place:
        assert docker[name.replace(".", "_").upper()] == local[name], name
