"""Models behind roles: `roles` says what a role takes and gives; one file per backend implements it."""
