"""The training loop: `loop.py` reads top to bottom; the other files are what it calls."""
