"""What training minimises: pure functions of logits, labels and weights."""
