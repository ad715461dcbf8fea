"""Data of training: which samples make up a step, and loading them in advance."""
