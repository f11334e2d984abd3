"""`Brokers`: connections to a cluster's brokers, made when they are needed, and who leads which partition.

Owner: one thread. Not here: one connection (wire.py), what is asked (direct.py, fetching.py).
"""

from collections.abc import Iterable

from kio.schema.errors import ErrorCode
from kio.schema.metadata.v12.request import MetadataRequest, MetadataRequestTopic
from kio.schema.metadata.v12.response import MetadataResponse
from kio.schema.types import TopicName

from streams.kafka.wire import Connection, Disconnected

Address = tuple[str, int]


class Brokers:
    """Connections of one client.

    Parameters
    ----------
    bootstrap_servers : str
        ``host:port,host:port``.
    client_id : str
    """

    def __init__(self, bootstrap_servers: str, client_id: str):
        self._bootstrap = [_address(each) for each in bootstrap_servers.split(",")]
        self._client_id = client_id
        self._connections: dict[Address, Connection] = {}

    def reach(self, address: Address, timeout_s: float) -> Connection:
        """Give the connection to a broker; raises Disconnected if nobody answers there."""
        connection = self._connections.get(address)
        if connection is None or connection.closed:
            connection = self._connections[address] = Connection(*address, self._client_id, timeout_s)
        return connection

    def any(self, timeout_s: float) -> Connection:
        """Give a connection to one of the brokers, those that are connected first; raises Disconnected if none answers."""
        for address in [*self._connections, *self._bootstrap]:
            try:
                return self.reach(address, timeout_s)
            except Disconnected as error:
                why = error
        raise why

    def leaders(self, topics: Iterable[str], timeout_s: float) -> tuple[dict[tuple[str, int], Address], dict[str, ErrorCode]]:
        """Ask who leads the partitions of topics.

        Returns
        -------
        dict, dict
            (Topic, partition) → its leader, of those that have one; topic → why others have none.
        """
        request = MetadataRequest(
            topics=tuple(MetadataRequestTopic(topic_id=None, name=TopicName(topic)) for topic in topics),
            allow_auto_topic_creation=False,
            include_topic_authorized_operations=False,
        )
        answer = self.any(timeout_s).call(request, MetadataResponse, timeout_s)
        brokers = {each.node_id: (each.host, each.port) for each in answer.brokers}
        found: dict[tuple[str, int], Address] = {}
        why: dict[str, ErrorCode] = {}
        for topic in answer.topics:
            if topic.error_code is not ErrorCode.none:
                why[topic.name] = topic.error_code
            for each in topic.partitions:
                if each.leader_id in brokers:
                    found[topic.name, each.partition_index] = brokers[each.leader_id]
                else:
                    why[topic.name] = each.error_code
        return found, why

    def close(self) -> None:
        """Hang up."""
        for connection in self._connections.values():
            connection.close()


def _address(text: str) -> Address:
    host, _, port = text.strip().rpartition(":")
    return host.strip("[]"), int(port)
