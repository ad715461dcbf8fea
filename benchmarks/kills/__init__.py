"""Kill runs at random moments, run the same command again, compare the result with an undisturbed run."""
