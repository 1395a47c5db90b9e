"""One file an engine; ``base`` says what they have in common."""
