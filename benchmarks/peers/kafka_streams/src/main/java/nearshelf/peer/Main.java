package nearshelf.peer;

import java.io.IOException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.state.KeyValueBytesStoreSupplier;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.StoreBuilder;
import org.apache.kafka.streams.state.Stores;

/**
 * Stock and orders in, allocations out, exactly once, on one stream thread; runs until it is told to end.
 *
 * <p>The cells have no cache by default: hardly a cell is asked for twice between two commits, so that it cost more than it
 * saved, in memory and on RocksDB. The sequence's store has one: of its values only the last before a commit is written.
 */
public final class Main {

    private static final Duration PATIENCE = Duration.ofSeconds(20);

    private Main() {}

    public static void main(String[] arguments) throws IOException, InterruptedException {
        Options options = Options.parse(arguments);
        Map<String, Location> network = Location.readNetwork(Path.of(options.get("network")));
        KafkaStreams streams = new KafkaStreams(topology(options, network), properties(options));
        CountDownLatch ended = new CountDownLatch(1);
        streams.setStateListener((state, before) -> {
            if (state == KafkaStreams.State.RUNNING) {
                System.out.println("running");
            } else if (state == KafkaStreams.State.ERROR || state == KafkaStreams.State.NOT_RUNNING) {
                ended.countDown();
            }
        });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(PATIENCE)));
        streams.start();
        ended.await();
        if (streams.state() == KafkaStreams.State.ERROR) {
            System.exit(1);
        }
    }

    private static Topology topology(Options options, Map<String, Location> network) {
        Deserializer<String> key = new StringDeserializer();
        StoreBuilder<KeyValueStore<Bytes, Integer>> cells =
                Stores.keyValueStoreBuilder(store(options, Allocator.CELLS), Serdes.Bytes(), Serdes.Integer());
        StoreBuilder<KeyValueStore<String, Long>> counters =
                Stores.keyValueStoreBuilder(store(options, Allocator.COUNTERS), Serdes.String(), Serdes.Long());
        return new Topology()
                .addSource("stock", key, new EventDeserializer(), options.get("stock"))
                .addSource("orders", key, new EventDeserializer(), options.get("orders"))
                .addProcessor("allocator", () -> new Allocator(network), "stock", "orders")
                .addStateStore(
                        options.number("cache-mb") > 0 ? cells.withCachingEnabled() : cells.withCachingDisabled(),
                        "allocator")
                .addStateStore(counters.withCachingEnabled(), "allocator")
                .addSink(
                        "allocations",
                        options.get("allocations"),
                        new StringSerializer(),
                        new AllocationSerializer(),
                        "allocator");
    }

    private static KeyValueBytesStoreSupplier store(Options options, String name) {
        return switch (options.get("store")) {
            case "memory" -> Stores.inMemoryKeyValueStore(name);
            case "rocksdb" -> Stores.persistentKeyValueStore(name);
            default -> throw new IllegalArgumentException("--store: expected memory or rocksdb");
        };
    }

    private static Properties properties(Options options) {
        Properties properties = new Properties();
        properties.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, options.get("bootstrap-servers"));
        properties.put(StreamsConfig.APPLICATION_ID_CONFIG, options.get("application-id"));
        properties.put(StreamsConfig.STATE_DIR_CONFIG, options.get("state-directory"));
        properties.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        properties.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        properties.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, options.number("commit-interval-ms"));
        properties.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, (options.number("cache-mb") + 1) << 20);
        properties.put(StreamsConfig.BUFFERED_RECORDS_PER_PARTITION_CONFIG, 20_000);
        properties.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), 5_000);
        properties.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_PARTITION_FETCH_BYTES_CONFIG), 8 << 20);
        properties.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), 512 << 10);
        properties.put(StreamsConfig.producerPrefix(ProducerConfig.LINGER_MS_CONFIG), 5);
        properties.put(StreamsConfig.producerPrefix(ProducerConfig.BUFFER_MEMORY_CONFIG), 128L << 20);
        // What meets the last transaction's commit markers is sent again after this; 100 ms by default.
        properties.put(StreamsConfig.producerPrefix(ProducerConfig.RETRY_BACKOFF_MS_CONFIG), 2);
        properties.putAll(options.settings());
        return properties;
    }
}
