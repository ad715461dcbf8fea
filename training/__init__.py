"""Training of subject-to-video models: positions, objectives, tasks, sampling, parallelism, the loop."""
