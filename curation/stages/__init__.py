"""The steps over clips: each measures, decides or makes something, and changes rows in place."""
