"""What watches a training run, and what may act on it: one file each, all of the shape in `base.py`."""
