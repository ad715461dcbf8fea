"""Estimate FLOPs and memory of a training step before it runs."""
