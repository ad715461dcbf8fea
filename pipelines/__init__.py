"""The commands, which a person or `ray job submit` runs. They parse, wire and print; they hold no logic."""
