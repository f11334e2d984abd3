package nearshelf.peer;

/** What the allocator is told. */
sealed interface Event {

    /** Units of a SKU that came to a location. */
    record Receipt(String locationId, String sku, int quantity) implements Event {}

    /** An order of one line, to be delivered to a point. */
    record Order(String orderId, String lineId, String sku, int quantity, double latitude, double longitude)
            implements Event {}
}
