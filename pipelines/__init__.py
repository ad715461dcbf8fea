"""The doors: what a person, or `ray job submit`, runs. They wire rooms together and hold no logic."""
