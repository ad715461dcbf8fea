"""Trainers of the tiny models of the profile `playground`.

`roles` maps each role to its trainer; `grounding`, `segmenting`, `clip` and `faces` are the trainers.
"""
