"""How good the trained networks are on real rows."""
