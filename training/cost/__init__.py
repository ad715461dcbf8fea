"""What a step costs, before it is run."""
