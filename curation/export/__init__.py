"""Export a dataset in the layout that another trainer reads.

`plan.py` chooses the clips to export. It reads only the columns without pictures. `write.py` writes a unit of
the plan. Units are independent, so workers can write them in parallel. `folder.py` keeps the state of the
output folder and finishes it. Each file in `targets/` describes one trainer.
"""
