package nearshelf.peer;

import java.util.Arrays;
import org.apache.kafka.common.utils.Bytes;

/** The locations that stock one SKU, by their ids, and the key of each one's cell in the state store. */
final class Shelves {

    private Location[] locations = {};
    private Bytes[] cells = {};

    int size() {
        return locations.length;
    }

    Location location(int shelf) {
        return locations[shelf];
    }

    Bytes cell(int shelf) {
        return cells[shelf];
    }

    void add(Location location, Bytes cell) {
        int at = 0;
        while (at < locations.length && locations[at].id().compareTo(location.id()) < 0) {
            at++;
        }
        if (at < locations.length && locations[at].id().equals(location.id())) {
            return;
        }
        locations = Arrays.copyOf(locations, locations.length + 1);
        cells = Arrays.copyOf(cells, locations.length);
        System.arraycopy(locations, at, locations, at + 1, locations.length - 1 - at);
        System.arraycopy(cells, at, cells, at + 1, locations.length - 1 - at);
        locations[at] = location;
        cells[at] = cell;
    }

    /** Writes the dot product of each location with a point; the largest is the nearest. */
    void cosines(Location point, double[] cosinesOut) {
        for (int shelf = 0; shelf < locations.length; shelf++) {
            Location at = locations[shelf];
            cosinesOut[shelf] = at.x() * point.x() + at.y() * point.y() + at.z() * point.z();
        }
    }
}
