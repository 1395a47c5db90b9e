"""Training of treatment-effect networks: rows, plans, the loop that carries a plan out, evaluation and export."""
