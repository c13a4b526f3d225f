"""Benchmarks: figures side by side with influxd in one run; nothing is asserted."""
