package nearshelf.peer;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonGenerator;
import com.fasterxml.jackson.core.StreamWriteFeature;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import org.apache.kafka.common.serialization.Serializer;

/** Writes decisions as records of `allocations.v1`. */
final class AllocationSerializer implements Serializer<Allocation> {

    private static final JsonFactory JSON =
            JsonFactory.builder().enable(StreamWriteFeature.USE_FAST_DOUBLE_WRITER).build();

    private final ByteArrayOutputStream bytes = new ByteArrayOutputStream(1024);

    @Override
    public byte[] serialize(String topic, Allocation allocation) {
        bytes.reset();
        try (JsonGenerator json = JSON.createGenerator(bytes)) {
            write(json, allocation);
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
        return bytes.toByteArray();
    }

    private static void write(JsonGenerator json, Allocation allocation) throws IOException {
        boolean allocated = allocation.location() != null;
        String id = allocation.poolId() + "-" + allocation.sequence();
        json.writeStartObject();
        json.writeStringField("allocation_id", id);
        json.writeNumberField("sequence", allocation.sequence());
        json.writeStringField("order_id", allocation.order().orderId());
        json.writeStringField("pool_id", allocation.poolId());
        json.writeStringField("status", allocated ? "allocated" : "backordered");
        json.writeArrayFieldStart("shipments");
        if (allocated) {
            json.writeStartObject();
            json.writeStringField("shipment_id", id + "-1");
            json.writeStringField("location_id", allocation.location().id());
            json.writeStringField("kind", "ship");
            json.writeNumberField("distance_km", allocation.distanceKm());
            json.writeArrayFieldStart("lines");
            writeLine(json, allocation.order());
            json.writeEndObject();
            json.writeEndArray();
            json.writeEndObject();
        }
        json.writeEndArray();
        json.writeArrayFieldStart("unallocated");
        if (!allocated) {
            writeLine(json, allocation.order());
            json.writeStringField("reason", "no_stock");
            json.writeEndObject();
        }
        json.writeEndArray();
        json.writeStringField("policy", "nearest");
        json.writeNumberField("decided_at", allocation.decidedAt());
        json.writeObjectFieldStart("source");
        json.writeStringField("topic", allocation.topic());
        json.writeNumberField("partition", allocation.partition());
        json.writeNumberField("offset", allocation.offset());
        json.writeEndObject();
        json.writeObjectFieldStart("explanation");
        json.writeStringField("policy", "nearest");
        json.writeNumberField("version", 1);
        json.writeNumberField("considered", allocation.considered());
        json.writeStringField("won", allocated ? "nearest" : "nothing");
        json.writeArrayFieldStart("lost");
        for (Allocation.Loser loser : allocation.losers()) {
            json.writeStartObject();
            json.writeStringField("location_id", loser.location().id());
            json.writeNumberField("distance_km", loser.distanceKm());
            json.writeStringField("reason", loser.reason());
            json.writeEndObject();
        }
        json.writeEndArray();
        json.writeEndObject();
        json.writeEndObject();
    }

    /** Leaves the line open, for a reason to be added. */
    private static void writeLine(JsonGenerator json, Event.Order order) throws IOException {
        json.writeStartObject();
        json.writeStringField("line_id", order.lineId());
        json.writeStringField("sku", order.sku());
        json.writeNumberField("quantity", order.quantity());
    }
}
