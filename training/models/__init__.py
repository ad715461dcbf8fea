"""Base models: one `Family` for each kind, on stock diffusers transformers."""
