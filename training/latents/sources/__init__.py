"""What is encoded: curated datasets, videos, pairs of pictures."""
