"""What is said of a result."""
