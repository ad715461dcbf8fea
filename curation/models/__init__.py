"""Models behind roles: `roles` defines a protocol per role, and each backend implements one in its file."""
