"""Whether every way to a score gives the same score."""
