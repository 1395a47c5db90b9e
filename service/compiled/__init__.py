"""Compiled reading of long bodies; what cannot be compiled here is read in another way."""
