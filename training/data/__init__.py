"""Which samples make up a step, and reading them ahead."""
