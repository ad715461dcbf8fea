"""Measure subjects: pure functions from pictures, masks and embeddings to scores."""
