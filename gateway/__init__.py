"""The InfluxDB 1.x surface (HTTP and UDP) in front of the TinyFlux engine."""
