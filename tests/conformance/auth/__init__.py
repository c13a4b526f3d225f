"""Users and rights: our server and a live influxd, both with authentication, asked the same."""
