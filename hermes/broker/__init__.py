"""Brokers to start and stop: embedded, Apache Kafka."""
