"""The shape of answers: JSON, CSV and MessagePack."""
