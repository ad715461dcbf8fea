"""The schema, and what a row is made of: ids, references, thresholds, verdicts."""
