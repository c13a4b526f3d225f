"""Prometheus' remote storage as InfluxDB 1.x speaks it.

`write` takes samples in at /api/v1/prom/write, `read` gives them out at /api/v1/prom/read, and
`messages` has what both are made of: protocol buffers and snappy.
"""
