"""References and a prompt -> video."""
