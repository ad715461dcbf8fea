"""Trained models: the real classes of the libraries that the papers name, one file per backend."""
