"""The InfluxQL functions: what each takes, gives and calls in the engine."""
