"""Measurements of a subject before a verdict: pure functions from pictures and masks to numbers."""
