"""What both halves stand on: errors, storage, settings, the Ray session, reading video."""
