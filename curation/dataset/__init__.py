"""The dataset on disk: fragments of an unfinished run, shards of finished rows, the manifest."""
