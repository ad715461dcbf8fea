"""Stock diffusers transformers, and how each takes references."""
