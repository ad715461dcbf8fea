"""Rows: their columns, ids, references, thresholds and verdicts, and how they become Arrow tables."""
