"""The encoded dataset: VAE latents and text embeddings, made once and read by every run."""
