"""The encoded dataset: VAE latents and text embeddings, written once and read by every training run."""
