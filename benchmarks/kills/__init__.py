"""Kill runs at random moments, run the same command again, and compare the result with an undisturbed run."""
