"""The dataset on disk: fragments of a run under way, shards of finished rows, the manifest."""
