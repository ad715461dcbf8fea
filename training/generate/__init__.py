"""Generation: references and a prompt -> video."""
