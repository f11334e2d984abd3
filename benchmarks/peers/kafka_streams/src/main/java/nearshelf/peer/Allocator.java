package nearshelf.peer;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.processor.api.RecordMetadata;
import org.apache.kafka.streams.state.KeyValueIterator;
import org.apache.kafka.streams.state.KeyValueStore;

/**
 * Promises each order to the nearest location that has its units.
 *
 * <p>The units are in the state store, a key per cell (SKU, location). Beside it, in memory, is what never changes once it
 * is there: which locations stock a SKU, so that an order costs one or two look-ups. It is built again from the store
 * whenever the task starts.
 */
final class Allocator implements Processor<String, Event, String, Allocation> {

    static final String CELLS = "cells";
    static final String COUNTERS = "counters";

    private static final String SEQUENCE = "sequence";
    private static final int MOST_LOSERS = 3;
    private static final Shelves NOWHERE = new Shelves();

    private final Map<String, Location> network;
    private final Map<String, Shelves> shelvesOf = new HashMap<>();
    private final double[] cosines;
    private ProcessorContext<String, Allocation> context;
    private KeyValueStore<Bytes, Integer> cells;
    private KeyValueStore<String, Long> counters;
    private long sequence;

    Allocator(Map<String, Location> network) {
        this.network = network;
        this.cosines = new double[network.size()];
    }

    @Override
    public void init(ProcessorContext<String, Allocation> context) {
        this.context = context;
        cells = context.getStateStore(CELLS);
        counters = context.getStateStore(COUNTERS);
        Long last = counters.get(SEQUENCE);
        sequence = last == null ? 0 : last;
        try (KeyValueIterator<Bytes, Integer> all = cells.all()) {
            while (all.hasNext()) {
                Bytes cell = all.next().key;
                String key = new String(cell.get(), StandardCharsets.UTF_8);
                int slash = key.lastIndexOf('/');
                shelves(key.substring(0, slash)).add(network.get(key.substring(slash + 1)), cell);
            }
        }
    }

    @Override
    public void process(Record<String, Event> record) {
        if (record.value() instanceof Event.Order order) {
            context.forward(new Record<>(order.orderId(), decide(order, record), record.timestamp()));
        } else if (record.value() instanceof Event.Receipt receipt) {
            receive(receipt);
        }
    }

    private void receive(Event.Receipt receipt) {
        Location location = network.get(receipt.locationId());
        if (location == null) {
            throw new IllegalArgumentException("no such location: " + receipt.locationId());
        }
        Bytes cell = Bytes.wrap((receipt.sku() + "/" + location.id()).getBytes(StandardCharsets.UTF_8));
        Integer units = cells.get(cell);
        cells.put(cell, (units == null ? 0 : units) + receipt.quantity());
        if (units == null) {
            shelves(receipt.sku()).add(location, cell);
        }
    }

    private Allocation decide(Event.Order order, Record<String, Event> record) {
        Shelves shelves = shelvesOf.getOrDefault(order.sku(), NOWHERE);
        shelves.cosines(Location.at(null, order.latitude(), order.longitude()), cosines);
        Location winner = null;
        double winnerCosine = 0;
        List<Allocation.Loser> losers = new ArrayList<>(MOST_LOSERS);
        for (int looked = 0; looked < shelves.size() && (winner == null || losers.size() < MOST_LOSERS); looked++) {
            int shelf = nearest(shelves.size());
            double cosine = cosines[shelf];
            cosines[shelf] = Double.NEGATIVE_INFINITY;
            if (winner == null && take(shelves.cell(shelf), order.quantity())) {
                winner = shelves.location(shelf);
                winnerCosine = cosine;
            } else if (losers.size() < MOST_LOSERS) {
                String reason = winner == null ? "no_stock" : cosine == winnerCosine ? "location_id" : "farther";
                losers.add(new Allocation.Loser(shelves.location(shelf), Location.kilometres(cosine), reason));
            }
        }
        counters.put(SEQUENCE, ++sequence);
        RecordMetadata source = context.recordMetadata().orElseThrow();
        return new Allocation(
                sequence,
                record.key(),
                order,
                winner,
                Location.kilometres(winnerCosine),
                record.timestamp(),
                source.topic(),
                source.partition(),
                source.offset(),
                shelves.size(),
                losers);
    }

    /** The first of the largest cosines: of locations as near as each other, the one with the smaller id. */
    private int nearest(int count) {
        int nearest = 0;
        for (int shelf = 1; shelf < count; shelf++) {
            if (cosines[shelf] > cosines[nearest]) {
                nearest = shelf;
            }
        }
        return nearest;
    }

    private boolean take(Bytes cell, int quantity) {
        int units = cells.get(cell);
        if (units < quantity) {
            return false;
        }
        cells.put(cell, units - quantity);
        return true;
    }

    private Shelves shelves(String sku) {
        return shelvesOf.computeIfAbsent(sku, unknown -> new Shelves());
    }
}
