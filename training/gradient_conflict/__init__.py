"""Gradient conflict between two tasks: measure, watch, plot, project."""
