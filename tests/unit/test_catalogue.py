"""The catalogue of topics against the contract. On a real cluster: tests/integration/test_broker.py."""

import pytest

from config.settings import load_settings
from topics import events
from topics.catalogue import CATALOGUE, Keep, Partitions

SETTINGS = load_settings(partitions=3, click_partitions=5)
INVENTORY = {
    *events.INVENTORY_TOPICS,
    "inventory.v1",
    "allocations.v1",
    "inventory-changelog.v1",
}


def test_every_topic_that_is_judged_is_in_the_catalogue():
    assert events.MODELS.keys() <= CATALOGUE.keys()


def test_all_inventory_topics_share_one_partition_count():
    assert {name for name, topic in CATALOGUE.items() if topic.partitions is Partitions.INVENTORY} == INVENTORY
    assert {CATALOGUE[name].partition_count(SETTINGS) for name in INVENTORY} == {3}


def test_a_dead_letter_finds_the_partition_of_any_input():
    assert CATALOGUE["dead-letter.v1"].partition_count(SETTINGS) == 5
    assert CATALOGUE["dead-letter.v1"].partition_count(load_settings(partitions=7)) == 7


@pytest.mark.parametrize("name", events.MODELS)
def test_no_sender_sets_the_time_of_an_input(name):
    assert CATALOGUE[name].config(SETTINGS)["message.timestamp.type"] == "LogAppendTime"


@pytest.mark.parametrize("name", ["inventory.v1", "locations.v1"])
def test_state_by_key_is_compacted_and_never_expires(name):
    config = CATALOGUE[name].config(SETTINGS)
    assert config["cleanup.policy"] == "compact"
    assert "retention.ms" not in config


@pytest.mark.parametrize("name", ["inventory-changelog.v1", "clicks-changelog.v1"])
def test_a_changelog_forgets_nothing(name):
    config = CATALOGUE[name].config(SETTINGS)
    assert (config["cleanup.policy"], config["retention.ms"]) == ("delete", "-1")


def test_a_refused_record_of_the_largest_size_fits_into_the_dead_letters():
    longest_base64 = events.MAX_VALUE_BYTES * 4 // 3
    assert int(CATALOGUE["dead-letter.v1"].config(SETTINGS)["max.message.bytes"]) > longest_base64


def test_models_of_each_topic_are_records_and_only_changelogs_have_none():
    for topic in CATALOGUE.values():
        assert all(issubclass(model, events.Record) for model in topic.models), topic.name
        assert bool(topic.models) == (topic.keep is not Keep.FOREVER), topic.name
