"""A subject-to-video model that a laptop can train: real classes, tiny sizes, lossless latents."""
