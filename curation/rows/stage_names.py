"""The names of the stages, in the order in which a run goes through them."""

from __future__ import annotations

SLICE = "slice"
CAPTION = "caption"
MATCH = "match"
GROUND = "ground"
TRACK = "track"
SEGMENT = "segment"
FLOW = "flow"
FILTER = "filter"
CROP = "crop"
INPAINT = "inpaint"
REDUX = "redux"
CROSSPAIR = "crosspair"
RETRIEVE = "retrieve"
SHARD = "shard"

# `slice` makes the rows. `crosspair`, `retrieve` and `shard` need all rows and run at the end.
STAGES = (
    SLICE,
    CAPTION,
    MATCH,
    GROUND,
    TRACK,
    SEGMENT,
    FLOW,
    FILTER,
    CROP,
    INPAINT,
    REDUX,
    CROSSPAIR,
    RETRIEVE,
    SHARD,
)
