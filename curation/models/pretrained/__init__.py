"""Trained models: the classes of the libraries that the papers use, one file per backend."""
