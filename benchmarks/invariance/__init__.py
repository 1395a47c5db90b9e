"""What training across environments reaches where the invariant answer is known."""
