"""Bytes to columns and columns to bytes, a batch at a time.

`decode`, `decode_clicks` (decode.py) read whole batches; their kernels (scan.py) take what is surely good, the models
(topics/events.py) judge the rest. `encode_allocations`, `encode_inventory`, `encode_dead_letter` (encode.py) write.
Not here: Kafka, state, decisions.
"""
