"""TinyFlux: an embeddable time series database."""
