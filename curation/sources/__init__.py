"""What comes in: folders, manifests, captions, duplicates."""
