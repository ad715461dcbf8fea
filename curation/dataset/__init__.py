"""The dataset on disk: finished rows on the way (fragments), shards, the manifest that says what is whole.

O/data/clips-00000-of-00004.parquet   every row, in order of video and time
O/clips/ab/<clip_id>.mp4              each clip once
O/manifest.json                       written last: without it the dataset is not finished
O/report/index.html
O/work/                               only while a run is under way, or was interrupted
"""

DATA = "data"
CLIPS_FOLDER = "clips"
WORK = "work"
MANIFEST = "manifest.json"
