"""What is trained: `task.py` says what a task is, and one file holds each."""
