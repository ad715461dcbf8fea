"""One trainer per role: a tiny model of the real architecture, saved in the real format."""
