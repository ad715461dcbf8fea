"""LoRA adapters: made by peft, their files, models with them."""
