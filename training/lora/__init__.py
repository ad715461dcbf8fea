"""LoRA: adapters in a model, their files, and what a run adds to a model."""
