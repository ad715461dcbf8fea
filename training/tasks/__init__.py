"""Training tasks: `task.py` has the protocol, and each task has one file."""
