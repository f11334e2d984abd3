"""Deterministic simulation: the worker's own code, whole, over a model of Kafka, with one seed for all that is left to chance.

scheduler.py: simulated time, and "threads" of which one runs at a time. kafka.py: the model broker. clients.py: its clients,
in place of confluent-kafka's. worker.py: a process: `Flows` and all below it, as they are, and in place of Faust a model of
what it does. disk.py: where snapshots are kept, and what befalls them. shop.py: the events. run.py: one seed, its faults and
its end. checks.py: what must then be true. many.py: many seeds, `make simulate`.
"""
