"""The `ctrlift` command: the only room that may import both training and service.

One file a command; each command imports what it needs inside its own function, so that
`ctrlift serve --help` starts without torch and a command's start-up pays only for itself.
"""
