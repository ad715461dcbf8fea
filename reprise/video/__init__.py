"""Reading video: decoding, with a limit on every wait."""
