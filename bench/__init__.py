"""Measurements, each against a peer or a bound of the same run; see README.md. Nothing here is a test."""
