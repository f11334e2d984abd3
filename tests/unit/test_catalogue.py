"""The catalogue of topics against the contract. On a real cluster: tests/integration/test_broker.py."""

import subprocess
import sys

import pytest

from config.settings import load_settings
from topics import events
from topics.catalogue import (
    CATALOGUE,
    INVENTORY_TOPICS,
    Keep,
    Partitions,
    Role,
    changelog_of,
    inputs_of,
    outputs_of,
    publishable,
    topics_of,
)
from topics.reasons import Wire

SETTINGS = load_settings(partitions=3, click_partitions=5)
INVENTORY = {
    *INVENTORY_TOPICS,
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


@pytest.mark.parametrize("name", ["inventory.v1", "locations.v1", "acknowledgements.v1"])
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


@pytest.mark.parametrize("topic", publishable(), ids=lambda topic: topic.name)
def test_an_input_takes_the_largest_value_that_the_models_take(topic):
    assert int(topic.config(SETTINGS)["max.message.bytes"]) > events.MAX_VALUE_BYTES


def test_marks_of_replays_stay_as_long_as_their_letters_and_of_each_the_latest():
    marks, letters = (CATALOGUE[name].config(SETTINGS) for name in ("dead-letter-replays.v1", "dead-letter.v1"))
    assert marks["cleanup.policy"] == "compact,delete"
    assert marks["retention.ms"] == letters["retention.ms"]


def test_models_of_each_topic_are_records_and_only_changelogs_have_none():
    for topic in CATALOGUE.values():
        assert all(issubclass(model, events.Record) for model in topic.models), topic.name
        assert bool(topic.models) == (topic.keep is not Keep.FOREVER), topic.name


def test_the_codes_of_topics_in_changelogs_written_so_far_stay():
    """A changelog notes each event's topic by its place in the group's inputs."""
    assert inputs_of("inventory")[:5] == ("sales.v1", "stock.v1", "orders.v1", "fulfilments.v1", "ticks.v1")
    assert inputs_of("clicks")[:1] == ("clicks.v1",)


def test_each_group_has_its_own_topics_and_they_are_all_there_are():
    assert topics_of("inventory", Role.STATE) == ("locations.v1",)
    assert set(outputs_of("inventory")) == {"inventory.v1", "allocations.v1", "dead-letter.v1", "alerts.v1"}
    assert set(outputs_of("clicks")) == {"demand.v1", "dead-letter.v1"}
    assert (changelog_of("inventory"), changelog_of("clicks")) == ("inventory-changelog.v1", "clicks-changelog.v1")
    groups = {group for topic in CATALOGUE.values() for group in topic.groups}
    assert {name for group in groups for name in topics_of(group, *Role)} == set(CATALOGUE)


def test_a_group_that_there_is_not_is_named_with_those_there_are():
    with pytest.raises(LookupError, match="audit, clicks, inventory, operators, found stock"):
        inputs_of("stock")


def test_a_key_is_made_of_fields_of_the_value_or_is_the_pool_that_its_sender_knows():
    for topic in CATALOGUE.values():
        assert topic.every_value_has(*topic.key_fields) or topic.key_fields == ("pool_id",), topic.name
        assert bool(topic.key_fields) == (topic.role is not Role.CHANGELOG), topic.name


def test_people_publish_all_inputs_but_ticks():
    assert {topic.name for topic in publishable()} == events.MODELS.keys() - {"ticks.v1"}


def test_every_word_of_a_closed_list_has_a_sentence_of_its_own():
    lists = Wire.__subclasses__()
    assert len(lists) == 10
    for each in lists:
        sentences = [member.sentence for member in each]
        assert all(sentence[0].isupper() and sentence.endswith(".") for sentence in sentences), each
        assert len(set(sentences)) == len(sentences), each


def test_the_contract_is_imported_without_numba_numpy_or_a_kafka_client():
    code = "import sys, topics.events, topics.outputs, topics.reasons, topics.catalogue, topics.keys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"topics.events", "pydantic"} <= set(done.stdout.split())
    assert not {"numba", "numpy", "confluent_kafka", "aiokafka", "faust", "orjson"} & set(done.stdout.split())
