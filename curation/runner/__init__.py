"""A run: the graph, Ray Data, workers, resume, finishing a dataset, refilter."""
