"""Evaluation of results."""
