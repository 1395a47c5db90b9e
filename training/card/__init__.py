"""Templates and figures of the model card."""
