"""A dataset in the layout that another trainer reads: what goes, how it is written, and what is left out.

`plan.py` decides what goes, from the columns without pictures. `write.py` writes a unit of the plan. Units
are independent, so workers share them. `folder.py` holds the state of the output and closes it. Each file
in `targets/` describes one trainer.
"""
