"""A run from start to end: the graph, Ray Data, workers, resume, finishing the dataset."""
