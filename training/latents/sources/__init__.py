"""Sources of items to encode: curated datasets, videos, pairs of pictures."""
