"""Checkpoints of others, both ways."""
