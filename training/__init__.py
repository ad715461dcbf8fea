"""What happens to one batch: positions, objectives, tasks, sampling, parallelism, the loop."""
