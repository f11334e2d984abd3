"""The contract's names of topics and the cluster's: no two prefixes meet, and no client goes round the prefix in silence."""

import confluent_kafka
import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from config.settings import PREFIX_LENGTH, SettingsError, load_settings
from streams.kafka import names
from streams.kafka.clients import MissingTopics, client_config, reading_config
from streams.worker.groups import Group
from topics.catalogue import CATALOGUE

MAPPED = {
    "Producer": {"produce", "send_offsets_to_transaction", "list_topics"},
    "Consumer": {"assign", "committed", "offsets_for_times", "get_watermark_offsets", "poll", "consume", "list_topics"},
    "AdminClient": {"list_topics", "create_topics", "delete_topics", "describe_configs", "list_offsets"},
}
NAME_NO_TOPIC = {
    "Producer": {
        *("init_transactions", "begin_transaction", "commit_transaction", "abort_transaction", "flush", "poll", "purge"),
        *("close", "cluster_id", "set_sasl_credentials"),
    },
    "Consumer": {
        *("close", "cluster_id", "consumer_group_metadata", "memberid", "set_sasl_credentials", "unassign", "unsubscribe"),
    },
}


def settings(**flags):
    return load_settings(bootstrap_servers="none:1", **flags)


def test_no_two_prefixes_give_one_name_since_none_of_the_contracts_is_a_prefix_and_another():
    prefixes = {one.removesuffix(other) for one in CATALOGUE for other in CATALOGUE if one != other and one.endswith(other)}
    assert prefixes == {"al"}  # locations.v1 and allocations.v1
    for prefix in prefixes:
        with pytest.raises(SettingsError, match=r"^topic_prefix: "):
            settings(topic_prefix=prefix)


def test_two_shops_with_one_app_id_have_two_groups_and_the_group_without_a_prefix_is_the_app_id():
    pairs = [("", "shop"), ("a.", "shop"), ("b.", "shop"), ("", "a.shop"), ("a.s-", "hop")]
    groups = [settings(topic_prefix=prefix, app_id=app_id).group_id for prefix, app_id in pairs]
    assert groups[0] == "shop"
    assert len(set(groups)) == len(pairs)


@pytest.mark.parametrize("prefix", ["shop", "shop 1.", "shop/1.", "ü.", "x" * PREFIX_LENGTH + "."])
def test_a_prefix_that_kafka_would_refuse_is_refused(prefix):
    with pytest.raises(SettingsError, match=r"^topic_prefix: "):
        settings(topic_prefix=prefix)


def test_the_longest_prefix_leaves_room_for_every_name():
    longest = settings(topic_prefix="x" * (PREFIX_LENGTH - 1) + ".")
    assert max(len(names.on_cluster(longest, topic)) for topic in CATALOGUE) == 249


def test_a_partitions_name_is_its_changelogs_whatever_the_app_id():
    group = Group("inventory", ("sales.v1",), "inventory-changelog.v1", None, None)
    places = [group.place(3, 4, settings(app_id=app_id)) for app_id in ("one", "two")]
    assert {place.name for place in places} == {"inventory-changelog.v1-3"}
    assert [place.former for place in places] == ["one-inventory-3", "two-inventory-3"]
    prefixed = group.place(3, 4, settings(topic_prefix="shop1."))
    assert (prefixed.name, prefixed.former) == ("shop1.inventory-changelog.v1-3", None)


@pytest.mark.parametrize("client", [confluent_kafka.Producer, confluent_kafka.Consumer, AdminClient])
def test_a_client_that_is_not_mapped_refuses_a_configuration_with_a_prefix(client):
    with pytest.raises(KafkaException, match="No such configuration property"):
        client(reading_config(settings(topic_prefix="shop1."), "g"))


@pytest.mark.parametrize("kind", ["Producer", "Consumer", "AdminClient"])
def test_without_a_prefix_a_client_is_confluent_kafkas_own(kind):
    client = getattr(names, kind)(client_config(settings()) | ({"group.id": "g"} if kind == "Consumer" else {}))
    assert type(client) is getattr(names, kind)
    assert all(getattr(type(client), method) is getattr(type(client).__base__, method) for method in MAPPED[kind])


@pytest.mark.parametrize("kind", ["Producer", "Consumer"])
def test_with_a_prefix_each_method_is_mapped_refuses_or_names_no_topic(kind):
    prefixed = settings(topic_prefix="shop1.")
    client = getattr(names, kind)(reading_config(prefixed, "g") if kind == "Consumer" else client_config(prefixed))
    for method in (name for name in dir(getattr(confluent_kafka, kind)) if not name.startswith("_")):
        if method not in MAPPED[kind] | NAME_NO_TOPIC[kind]:
            with pytest.raises(NotImplementedError, match="map it before its use"):
                getattr(client, method)()


def test_missing_topics_are_named_as_the_cluster_knows_them():
    error = MissingTopics(["orders.v1"], settings(topic_prefix="shop1."))
    assert str(error) == "topics missing at none:1: shop1.orders.v1. `nearshelf topics create` makes them."
