"""Benchmarks of speed, memory and quality, as ratios. Each command ends with one JSON line."""
