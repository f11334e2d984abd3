package nearshelf.peer;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.core.StreamReadFeature;
import java.io.IOException;
import org.apache.kafka.common.errors.SerializationException;
import org.apache.kafka.common.serialization.Deserializer;

/** Reads records of `stock.v1` and `orders.v1`, token by token; fields that are not needed are skipped. */
final class EventDeserializer implements Deserializer<Event> {

    private static final JsonFactory JSON =
            JsonFactory.builder().enable(StreamReadFeature.USE_FAST_DOUBLE_PARSER).build();

    private String kind;
    private String locationId;
    private String orderId;
    private String lineId;
    private String sku;
    private int quantity;
    private int lines;
    private double latitude;
    private double longitude;

    @Override
    public Event deserialize(String topic, byte[] value) {
        kind = locationId = orderId = lineId = sku = null;
        quantity = lines = 0;
        latitude = longitude = Double.NaN;
        try (JsonParser json = JSON.createParser(value)) {
            json.nextToken();
            readObject(json);
        } catch (IOException error) {
            throw new SerializationException("not an event, on " + topic, error);
        }
        if ("receipt".equals(kind) && locationId != null && sku != null) {
            return new Event.Receipt(locationId, sku, quantity);
        }
        if ("placed".equals(kind) && orderId != null && sku != null && lines == 1 && !Double.isNaN(latitude + longitude)) {
            return new Event.Order(orderId, lineId, sku, quantity, latitude, longitude);
        }
        throw new SerializationException("expected a receipt or an order of one line, found another event on " + topic);
    }

    /** Reads an event, a line of it or its destination: no two of them have a field of the same name. */
    private void readObject(JsonParser json) throws IOException {
        while (json.nextToken() == JsonToken.FIELD_NAME) {
            String field = json.currentName();
            json.nextToken();
            switch (field) {
                case "kind" -> kind = json.getText();
                case "location_id" -> locationId = json.getText();
                case "order_id" -> orderId = json.getText();
                case "line_id" -> lineId = json.getText();
                case "sku" -> sku = json.getText();
                case "quantity" -> quantity = json.getIntValue();
                case "latitude" -> latitude = json.getDoubleValue();
                case "longitude" -> longitude = json.getDoubleValue();
                case "destination" -> readObject(json);
                case "lines" -> {
                    for (; json.nextToken() == JsonToken.START_OBJECT; lines++) {
                        readObject(json);
                    }
                }
                default -> json.skipChildren();
            }
        }
    }
}
