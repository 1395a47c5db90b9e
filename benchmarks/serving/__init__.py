"""Drills and timings of the running service."""
