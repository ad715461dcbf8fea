"""Trainers of the tiny models of the profile `playground`.

`roles` says which trainer makes which model; `grounding`, `segmenting`, `clip` and `faces` are the trainers.
"""
