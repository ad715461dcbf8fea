"""Benchmarks: what Reprise costs and how good it is, as ratios. Each command ends with one JSON line."""
