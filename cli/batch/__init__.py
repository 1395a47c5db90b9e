"""Whole files in bounded memory: read in chunks, answered in blocks of users x candidates, written in order."""
