"""What happens to one clip: rows, stages, filters, models, taxonomy, shards, report.

Nothing here imports `training` or `pipelines`; the dataset on disk is the only thing that leaves.
"""
