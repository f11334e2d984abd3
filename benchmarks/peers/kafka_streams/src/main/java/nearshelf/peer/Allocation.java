package nearshelf.peer;

import java.util.List;

/** One decision; `location` is null if nobody had the units. */
record Allocation(
        long sequence,
        String poolId,
        Event.Order order,
        Location location,
        double distanceKm,
        long decidedAt,
        String topic,
        int partition,
        long offset,
        int considered,
        List<Loser> losers) {

    /** A location that was considered and not chosen. */
    record Loser(Location location, double distanceKm, String reason) {}
}
