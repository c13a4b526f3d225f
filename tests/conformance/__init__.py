"""Answers recorded from InfluxDB and replayed: the format is in cases.py."""
