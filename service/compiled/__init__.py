"""Compiled reading, encoding and writing of requests; what cannot be compiled here is done in another way."""
