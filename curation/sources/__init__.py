"""What comes in: rows of videos from a folder, a pattern or a manifest, without duplicates."""
