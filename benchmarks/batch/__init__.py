"""Whole files scored."""
