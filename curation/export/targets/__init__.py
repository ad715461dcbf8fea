"""The export targets, one module per trainer: its needs, its layout and the rules of its loader."""
