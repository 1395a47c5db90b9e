"""Treatment effects on data whose effects are known, and on real experiments."""
