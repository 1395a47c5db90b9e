"""Networks for treatment effects: users in, potential outcomes and propensities out, on the scale of their losses."""
