"""The same machines under virtual time: one process, one event queue, faults as data."""
