"""Other ways to serve the same network, each a small server in an environment of its own."""
