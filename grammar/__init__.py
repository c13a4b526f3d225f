"""The InfluxQL language: text to tree and back. No engine, no clock."""
