"""The checks can fail: each is fed what it must not let pass."""

import random
import socket
import struct
import threading
import time
from types import SimpleNamespace

import orjson
import pytest

from streams.inventory.pipeline import InventoryPipeline
from tests.chaos.cluster import transaction_entry
from tests.chaos.digests import Taken, cuts, pool_digests
from tests.chaos.load import ORDERS_ONLY, POOLS, Shop, network
from tests.chaos.proxy import Proxy
from tests.chaos.watch import Watch
from tests.inventory_log import make_log, segments, settings

SKU = ORDERS_ONLY[0]


def decision(sequence, pool="north", order="o1", units=0, sku=SKU, **changed):
    lines = [{"line_id": "1", "sku": sku, "quantity": units}] if units else []
    shipments = [{"shipment_id": "s", "location_id": "a", "kind": "ship", "lines": lines}] if lines else []
    value = {
        "allocation_id": f"{pool}-{sequence}",
        "sequence": sequence,
        "pool_id": pool,
        "order_id": order,
        "decided_at": sequence,
        "shipments": shipments,
        "unallocated": [],
    }
    return orjson.dumps(value | changed)


def cell(**changed):
    value = {"sku": SKU, "on_hand": 3, "reserved": 1, "safety_stock": 1, "available": 1, "version": 1}
    return b"a/" + SKU.encode(), orjson.dumps(value | changed)


@pytest.fixture
def watch():
    return Watch({("north", SKU): 5, ("south", SKU): 5})


def feed(watch, *values):
    for offset, value in enumerate(values):
        watch.decision(0, offset, value, now_ms=0.0)
    return watch.violations


def test_decisions_in_order_are_no_violation(watch):
    assert feed(watch, decision(1), decision(2), decision(1, pool="south"), decision(3)) == []


def test_a_decision_read_twice_is_a_violation(watch):
    (first, second) = feed(watch, decision(1), decision(1))
    assert "decision 2 of pool north expected, found 1" in first
    assert "north-1 was there already" in second


@pytest.mark.parametrize("sequences", [(1, 3), (2, 1), (1, 2, 4, 3)])
def test_a_gap_or_a_wrong_order_of_decisions_is_a_violation(watch, sequences):
    assert feed(watch, *map(decision, sequences))


def test_a_decision_that_the_log_tells_otherwise_later_is_a_violation(watch):
    feed(watch, decision(1), decision(2))
    messages = [SimpleNamespace(offset=lambda: 0, value=lambda: decision(1))]
    changed = [SimpleNamespace(offset=lambda: 1, value=lambda: decision(2, status="other"))]
    same = [SimpleNamespace(offset=lambda: 1, value=lambda: decision(2))]
    watch.reread(0, messages + same)
    assert watch.violations == []
    watch.reread(0, messages + changed)
    watch.reread(0, messages)
    assert len(watch.violations) == 2


def test_more_promised_than_was_ever_received_is_a_violation(watch):
    assert feed(watch, decision(1, units=3), decision(2, order="o2", units=2)) == []
    assert feed(watch, decision(3, order="o3", units=1))


def test_a_promise_given_back_can_be_given_to_another(watch):
    assert feed(watch, decision(1, units=5), decision(2, units=0), decision(3, order="o2", units=5)) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"version": 1}, "version 1 after version 1"),
        ({"version": 2, "available": 2}, "2 available of 3 on hand"),
        ({"version": 2, "reserved": -1, "available": 3}, "-1 reserved"),
        ({"version": 2, "reserved": 4, "available": 0}, "oversold: 4 reserved of 3 on hand"),
        ({"version": 2, "on_hand": -1, "reserved": 1, "available": 0}, "oversold: 1 reserved of -1 on hand"),
    ],
)
def test_a_cell_that_cannot_be_is_a_violation(watch, changed, said):
    watch.cell(0, 0, *cell())
    assert watch.violations == []
    watch.cell(0, 1, *cell(**changed))
    assert said in watch.violations[0]


TRANSFER = {"sent": 3, "received": 1, "open": 2, "status": "open"}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"open": 1}, "1 open of 3 sent, 1 received"),
        ({"received": 4, "open": 0}, "open with 3 sent, 4 received"),
        ({"status": "received"}, "received with 3 sent, 1 received"),
    ],
)
def test_a_transfer_that_contradicts_itself_is_a_violation(watch, changed, said):
    watch.transfer(0, 0, b"uk/t/s", orjson.dumps(TRANSFER))
    watch.transfer(0, 1, b"uk/t/s", None)
    assert watch.violations == []
    watch.transfer(0, 2, b"uk/t/s", orjson.dumps(TRANSFER | changed))
    assert said in watch.violations[0]


def test_a_parcel_that_left_against_its_order_may_take_on_hand_below_zero_where_nothing_is_reserved(watch):
    watch.cell(0, 0, *cell(on_hand=-1, reserved=0, available=0))
    assert watch.violations == []


def test_recovery_is_when_the_last_pool_decides_on_something_later(watch):
    recovery = watch.expect(10.0, ["north", "south"])
    watch.decision(0, 0, decision(1, decided_at=9), now_ms=3_000.0)
    watch.decision(0, 1, decision(2, decided_at=11), now_ms=4_000.0)
    assert recovery.seconds is None and watch.recovering() == [recovery]
    watch.decision(1, 0, decision(1, pool="south", decided_at=12), now_ms=5_010.0)
    assert recovery.seconds == 5.0 and watch.recovering() == []


def test_a_transactions_state_is_read_from_the_coordinators_record():
    key = struct.pack(">hh", 0, 3) + b"a-1"
    for version in (0, 1):
        assert transaction_entry(key, struct.pack(">hqhib", version, 7, 2, 10_000, 2) + b"rest") == ("a-1", 2)
    assert transaction_entry(key, None) is None


def test_the_same_seed_makes_the_same_shop():
    def kinds(seed):
        shop = Shop(seed)
        return [(record[0], record[1]) for record in (shop.event() for _ in range(300))]

    assert kinds("1/1") == kinds("1/1") != kinds("1/2")
    assert {pool for _, pool in kinds("1/1")} >= {pool.encode() for pool in POOLS}
    assert len(network()) == 5 * len(POOLS)


@pytest.mark.parametrize("seed", range(5))
def test_a_replay_in_other_cuts_takes_the_order_that_the_batches_had(seed):
    """Times that stand still, and go back between topics, force cuts; the digest shows any other order."""
    log = make_log(seed, 300)
    chance = random.Random(seed)
    for record in log.records:
        record.timestamp = record.timestamp // 3_000 * 3_000 - chance.choice((0, 0, 3_000))
    one_by_one = InventoryPipeline(0, 1, settings())
    for i, record in enumerate(log.records):
        one_by_one.process(one_by_one.decode(segments([record])), log.changes if i == 0 else [])
    taken = [Taken(one.topic, one.offset, one.timestamp, one.key, one.value, one.headers) for one in log.records]
    found = InventoryPipeline(0, 1, settings())
    found.process(found.decode([]), log.changes)
    batches = list(cuts(taken, chance))
    for batch in batches:
        found.process(found.decode(segments(batch)), [])
    assert 1 < len(batches) < 300
    assert pool_digests(found) == pool_digests(one_by_one)


@pytest.fixture
def echo():
    """A server that says everything twice, behind a proxy; gives the proxy and what the server heard."""
    heard = bytearray()
    server = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                peer, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(peer,), daemon=True).start()

    def answer(peer):
        try:
            while chunk := peer.recv(100):
                heard.extend(chunk)
                peer.sendall(chunk * 2)
        except OSError:
            pass
        peer.close()

    threading.Thread(target=serve, daemon=True).start()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    proxy = Proxy(port, server.getsockname()[1])
    yield proxy, heard
    proxy.close()
    server.close()


@pytest.fixture
def client(echo):
    with socket.create_connection(("127.0.0.1", echo[0].port), timeout=5) as connection:
        connection.sendall(b"a")
        assert receive(connection, 2) == b"aa"
        yield connection


def receive(connection, count):
    found = b""
    while len(found) < count and (chunk := connection.recv(count - len(found))):
        found += chunk
    return found


def test_a_delayed_answer_comes_whole(echo, client):
    echo[0].delay(0.05)
    started = time.monotonic()
    client.sendall(b"bc")
    assert receive(client, 4) == b"bcbc"
    assert time.monotonic() - started >= 0.1  # there and back


def test_a_connection_is_cut_after_so_many_bytes(echo, client):
    proxy, heard = echo
    proxy.cut(3)
    time.sleep(0.05)
    client.sendall(b"bcdef")
    with pytest.raises(ConnectionResetError):
        receive(client, 10)
    assert heard in (b"a", b"abcd")  # a reset may overtake what was sent before it


def test_answers_are_dropped_and_requests_are_not(echo, client):
    proxy, heard = echo
    proxy.drop_answers(True)
    client.sendall(b"bc")
    client.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.recv(1)
    assert heard == b"abc"
    proxy.drop_answers(False)
    client.settimeout(5)
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_half_a_connection_goes_on(echo, client):
    proxy, heard = echo
    proxy.half_close(answers=True)
    assert client.recv(1) == b""
    client.sendall(b"bc")
    deadline = time.monotonic() + 5
    while heard != b"abc" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert heard == b"abc"


def test_a_proxy_that_does_not_listen_refuses(echo):
    proxy, _ = echo
    proxy.listen(False)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", proxy.port), timeout=5)
    proxy.listen(True)
    socket.create_connection(("127.0.0.1", proxy.port), timeout=5).close()
