"""Conversion of released checkpoints, in both directions."""
