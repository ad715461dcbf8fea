"""Names of the folders and files of a dataset.

data/clips-00000-of-00004.parquet   every row, in order of video and time. After a refilter, `-`
                                    and 8 digits follow; manifest.json names those that count
clips/ab/<clip_id>.mp4              each clip once
manifest.json                       written last: without it the dataset is not finished
report/index.html
work/<config hash>/config.json      only during a run, or after an interrupted one
work/<config hash>/rows/            fragments: rows that a run has finished
work/refilter/                      shards of a refilter under way
"""

from __future__ import annotations

import re

from curation.rows.ids import CLIPS_FOLDER

DATA_FOLDER = "data"
REPORT_FOLDER = "report"
WORK_FOLDER = "work"
MANIFEST_FILE = "manifest.json"
REPORT_PAGE = f"{REPORT_FOLDER}/index.html"
REFILTER_FOLDER = f"{WORK_FOLDER}/refilter"
CONFIG_FILE = "config.json"

_SHARD_PATTERN = re.compile(rf"{DATA_FOLDER}/clips-\d{{5,}}-of-\d{{5,}}(-[0-9a-f]{{8}})?\.parquet")
_CLIP_PATTERN = re.compile(
    rf"{CLIPS_FOLDER}/[0-9a-f]{{2}}/[0-9a-f]{{20}}-\d{{7,}}-\d{{7,}}-[0-9a-f]{{6}}\.mp4"
)

_REPORT_PATTERN = re.compile(rf"{REPORT_FOLDER}/(index\.html|data/(index|text|clips-\d{{5,}})\.js)")
_RUN_FOLDER_PATTERN = re.compile(r"[0-9a-f]{12}|refilter")


def get_shard_path(number: int, total: int) -> str:
    """Return the path of shard `number` (from 0) of `total`."""
    return f"{DATA_FOLDER}/clips-{number:05d}-of-{total:05d}.parquet"


def get_generation_path(path: str, generation: str) -> str:
    """Path of a shard that replaces the one at `path`; `generation` is 8 hexadecimal digits."""
    found = _SHARD_PATTERN.fullmatch(path)
    stem = path.removesuffix(".parquet")
    return f"{stem.removesuffix(found[1] or '') if found else stem}-{generation}.parquet"


def get_config_path(config_hash: str) -> str:
    """Return the path of the config of an unfinished run."""
    return f"{WORK_FOLDER}/{config_hash}/{CONFIG_FILE}"


def get_fragment_folder(config_hash: str) -> str:
    """Return the folder of the fragments of an unfinished run."""
    return f"{WORK_FOLDER}/{config_hash}/rows"


def is_shard_path(path: str) -> bool:
    """Return whether a path has the form of a shard. In `data/` a run deletes only such files."""
    return _SHARD_PATTERN.fullmatch(path) is not None


def is_clip_path(path: str) -> bool:
    """Return whether a path has the form of a clip. In `clips/` a run deletes only such files."""
    return _CLIP_PATTERN.fullmatch(path) is not None


def is_report_path(path: str) -> bool:
    """Return whether a path is a file of the report. In `report/` a run deletes only such files."""
    return _REPORT_PATTERN.fullmatch(path) is not None


def is_run_folder(name: str) -> bool:
    """Return whether a name is that of a run's folder. In `work/` a run deletes only such folders."""
    return _RUN_FOLDER_PATTERN.fullmatch(name) is not None
