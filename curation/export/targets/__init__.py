"""One file a trainer: what it takes of a clip, how a sample is written, and what its loader would refuse."""
