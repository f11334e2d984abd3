package nearshelf.peer;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.io.IOException;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;

/** A place that ships, as a point of the unit sphere. */
record Location(String id, double x, double y, double z) {

    private static final double EARTH_KM = 6371.0088;

    static Location at(String id, double latitude, double longitude) {
        double north = Math.toRadians(latitude);
        double east = Math.toRadians(longitude);
        return new Location(
                id, Math.cos(north) * Math.cos(east), Math.cos(north) * Math.sin(east), Math.sin(north));
    }

    /** The great circle that belongs to a dot product of unit vectors, rounded to a metre. */
    static double kilometres(double cosine) {
        return Math.round(EARTH_KM * 1000 * Math.acos(Math.min(1, cosine))) / 1000.0;
    }

    /** Reads a network file in JSON: `{"locations": [{"id", "latitude", "longitude", ...}], ...}`. */
    static Map<String, Location> readNetwork(Path path) throws IOException {
        Map<String, Location> network = new HashMap<>();
        try (JsonParser json = new JsonFactory().createParser(path.toFile())) {
            json.nextToken();
            while (json.nextToken() == JsonToken.FIELD_NAME) {
                boolean wanted = json.currentName().equals("locations");
                json.nextToken();
                if (!wanted) {
                    json.skipChildren();
                    continue;
                }
                while (json.nextToken() == JsonToken.START_OBJECT) {
                    Location location = read(json);
                    network.put(location.id, location);
                }
            }
        }
        return network;
    }

    private static Location read(JsonParser json) throws IOException {
        String id = null;
        double latitude = Double.NaN;
        double longitude = Double.NaN;
        while (json.nextToken() == JsonToken.FIELD_NAME) {
            String field = json.currentName();
            json.nextToken();
            switch (field) {
                case "id" -> id = json.getText();
                case "latitude" -> latitude = json.getDoubleValue();
                case "longitude" -> longitude = json.getDoubleValue();
                default -> json.skipChildren();
            }
        }
        return at(id, latitude, longitude);
    }
}
