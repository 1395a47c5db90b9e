"""Benchmarks of exported graphs."""
