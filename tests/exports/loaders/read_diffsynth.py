"""Read an export of `h3-diffsynth` with DiffSynth-Studio's own dataset: one JSON line per sample."""

import json
import re
import sys
from pathlib import Path

from diffsynth.core.data.unified_dataset import UnifiedDataset
from diffsynth.utils.data.minimax_h3 import MiniMaxH3ReferenceLoader


def main(folder: Path) -> None:
    """Build the dataset with the flags that the export printed."""
    command = json.loads((folder / "export.json").read_text())["commands"][0]
    frames = int(re.search(r"--num_frames (\d+)", command)[1])
    dataset = UnifiedDataset(
        base_path=str(folder),
        metadata_path=str(folder / "train.jsonl"),
        data_file_keys=("video", "references"),
        main_data_operator=UnifiedDataset.default_video_operator(
            base_path=str(folder),
            height_division_factor=32,
            width_division_factor=32,
            num_frames=frames,
            time_division_factor=17,
            time_division_remainder=5,
            frame_rate=24,
            fix_frame_rate=True,
        ),
        special_operator_map={
            "references": MiniMaxH3ReferenceLoader(base_path=str(folder), num_frames=frames)
        },
    )
    for number in range(len(dataset)):
        sample = dataset[number]
        print(
            json.dumps(
                {
                    "caption": sample["prompt"],
                    "frames": len(sample["video"]),
                    "size": sample["video"][0].size,
                    "references": [block["image"].size for block in sample["references"]],
                }
            )
        )


main(Path(sys.argv[1]))
