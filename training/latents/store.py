"""Latents on disk: their files, their schema, and how they are written and read at random.

    latents/
      manifest.json                what was encoded with what, counts, dropped rows by reason; written last
      index.parquet                one row per sample, in the order of sample ids
      empty.safetensors            `text`: the embedding of the empty caption
      files.parquet                size and digest of every file (`records.py`)
      data/<part>.safetensors      tensors of some samples: `<sample_id>/video`, `/text`, `/reference/<n>`

A sample takes a few reads at known offsets: its video, its text, and only the references that were chosen.
The layout is the same on a disk and on S3.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.torch import save
from torch import Tensor

from reprise.errors import DamagedDataError, RepriseError, StorageError, TransientStorageError
from reprise.json_files import read_json_object
from reprise.storage import Storage
from training.data.samples import LatentSample, SampleChoice, SampleRecord, SampleReference, Subject
from training.latents.records import record_part, write_records

SCHEMA_VERSION = "1"
MANIFEST_FILE, INDEX_FILE, EMPTY_FILE, DATA_FOLDER = (
    "manifest.json",
    "index.parquet",
    "empty.safetensors",
    "data",
)
DROPPED_FILE = "dropped.parquet"

_REFERENCE_TYPE = pa.struct(
    [
        ("reference_id", pa.string()),
        ("variant", pa.string()),  # crop | segment | inpaint | redux | crosspair | retrieved | frame
        ("position", pa.int32()),  # n of its tensor `<sample_id>/reference/<n>`
        ("height", pa.int32()),  # latent pixels
        ("width", pa.int32()),  # latent pixels
    ]
)
_SUBJECT_TYPE = pa.struct(
    [("subject_id", pa.string()), ("category", pa.string()), ("references", pa.list_(_REFERENCE_TYPE))]
)
INDEX_SCHEMA: pa.Schema = pa.schema(
    [
        ("sample_id", pa.string()),  # of a curated clip: its clip_id
        ("source_id", pa.string()),  # of the video it was cut from
        (
            "key",
            pa.string(),
        ),  # hash of all inputs of the sample; a sample with a known key is not encoded again
        ("shard", pa.string()),  # file below data/
        ("frames", pa.int32()),  # latent frames
        ("height", pa.int32()),  # latent pixels
        ("width", pa.int32()),  # latent pixels
        ("video_frames", pa.int32()),  # frames of the video that was encoded
        ("video_height", pa.int32()),  # px
        ("video_width", pa.int32()),  # px
        ("fps", pa.float64()),  # frames per second that were encoded
        ("caption", pa.string()),
        ("text_tokens", pa.int32()),  # rows of the text embedding
        ("subjects", pa.list_(_SUBJECT_TYPE)),
        ("left_out", pa.list_(pa.string())),  # ids of pictures that could not be read
    ],
    metadata={b"reprise.latents": SCHEMA_VERSION.encode()},
)


class _ManifestPart(BaseModel):
    # Keys that another version added do not make its latents unusable. The schema version decides that.
    model_config = ConfigDict(extra="ignore", frozen=True)


class ModelInfo(_ManifestPart):
    """The model that made the latents."""

    path: str  # as it was given
    family: str  # wan | cogvideox
    revision: str | None = None  # of a hub id
    vae: str  # digest of the VAE (`encoders.hash_model_parts`); empty: unknown, and not compared
    text_encoder: str  # digest of the text encoder and the tokenizer


class LatentInfo(_ManifestPart):
    """Form of the stored latents."""

    dtype: str  # bf16 | fp32
    channels: int
    temporal: int  # frames per latent frame after the first
    spatial: int  # pixels per latent pixel
    normalisation: str  # mean_std: (x - mean) / std | scaling_factor: x * factor
    posterior: str  # mode | sample


class TextInfo(_ManifestPart):
    """Form of the stored text embeddings."""

    length: int  # tokens that the model sees: a shorter text is padded with zeros
    width: int


class LatentsManifest(_ManifestPart):
    """`manifest.json`."""

    schema_version: str = SCHEMA_VERSION
    created_by: str = ""
    fingerprint: str  # of model, config and schema; a folder holds rows of one fingerprint
    model: ModelInfo
    latents: LatentInfo
    text: TextInfo
    dataset: dict[str, Any] = {}  # where the rows came from
    config: dict[str, Any] = {}  # of the encoding
    rows_in: int = 0  # = encoded + dropped
    encoded: int = 0
    dropped: int = 0
    reasons: dict[str, int] = {}  # why rows were dropped
    left_out: int = 0  # pictures of encoded rows that could not be read
    references: dict[str, int] = {}  # by variant
    buckets: dict[str, int] = {}  # "TxHxW" in latent units -> samples


class Records:
    """The index as a sequence of `SampleRecord`, kept as columns, because it can have millions of rows."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table.combine_chunks()
        #: (n, 3) latent frames, height, width
        self.sizes: NDArray[np.int32] = np.stack(
            [table[name].to_numpy() for name in ("frames", "height", "width")], axis=1
        )

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __getitem__(self, row: int) -> SampleRecord:
        found = self.table.slice(row, 1).to_pylist()[0]
        subjects = tuple(
            Subject(
                subject["subject_id"],
                subject["category"],
                tuple(
                    SampleReference(r["reference_id"], r["variant"], r["position"])
                    for r in subject["references"]
                ),
            )
            for subject in found["subjects"]
        )
        return SampleRecord(
            sample_id=found["sample_id"],
            source_id=found["source_id"],
            shard=found["shard"],
            size=(found["frames"], found["height"], found["width"]),
            caption=found["caption"],
            subjects=subjects,
        )

    def get_column(self, name: str) -> list[Any]:
        """Return the values of one column, in the order of the rows."""
        return list(self.table[name].to_pylist())

    def count_subjects(self, variants: Sequence[str]) -> NDArray[np.int64]:
        """Count the subjects of each record that have a reference of one of these variants; shape (n,)."""
        subjects = self.table["subjects"]
        counts = np.zeros(len(self), np.int64)
        if not len(self):
            return counts
        row_of_subject = np.asarray(pc.list_parent_indices(subjects))
        references = pc.struct_field(pc.list_flatten(subjects), "references")
        subject_of_reference = np.asarray(pc.list_parent_indices(references))
        names = pc.struct_field(pc.list_flatten(references), "variant")
        usable = np.asarray(pc.is_in(names, value_set=pa.array(list(variants), pa.string())))
        with_any = np.unique(subject_of_reference[usable])
        np.add.at(counts, row_of_subject[with_any], 1)
        return counts

    def hash_rows(self, rows: NDArray[np.int64]) -> str:
        """Hash the contents of some rows, in their order. Another order of samples is another run."""
        keys = self.table["key"].take(pa.array(rows)).to_pylist()
        return hashlib.blake2b("\n".join(keys).encode(), digest_size=16).hexdigest()


class Latents:
    """A finished folder of latents, for reading. Several threads can use it.

    Raises:
        RepriseError: the folder holds no latents, is not finished, has another schema, or is empty.
    """

    def __init__(self, folder: Storage | str) -> None:
        self.folder = Storage.from_uri(folder) if isinstance(folder, str) else folder
        self.manifest = read_latents_manifest(self.folder)
        self.records = Records(read_index(self.folder))
        if not len(self.records):
            raise RepriseError(f"{self.folder.uri} holds no sample: see `dropped` in its manifest.json")
        self._shards: OrderedDict[str, _Shard] = OrderedDict()
        self._lock = threading.Lock()

    def read_sample(self, index: int, record: SampleRecord, choice: SampleChoice) -> LatentSample:
        """Read the tensors of one sample: its video, its text and the chosen references.

        Raises:
            RepriseError: a file is missing, truncated or lacks a tensor.
        """
        shard = self._get_shard(record.shard)
        name = record.sample_id
        references = [shard.read_tensor(f"{name}/reference/{position}") for position in choice.references]
        return LatentSample(
            index=index,
            sample_id=name,
            video=shard.read_tensor(f"{name}/video"),
            references=tuple(reference.unsqueeze(1) for reference in references),
            text=self.empty_text if choice.drop_caption else shard.read_tensor(f"{name}/text"),
        )

    @functools.cached_property
    def empty_text(self) -> Tensor:
        """Embedding (L, D) of the empty caption."""
        return _Shard(self.folder, EMPTY_FILE).read_tensor("text")

    def _get_shard(self, name: str) -> _Shard:
        with self._lock:
            shard = self._shards.get(name)
            if shard is None:
                shard = self._shards[name] = _Shard(self.folder, f"{DATA_FOLDER}/{name}")
                if len(self._shards) > _MAX_OPEN_SHARDS:
                    self._shards.popitem(last=False)  # closed when its last reader is done
            self._shards.move_to_end(name)
            return shard


_MAX_OPEN_SHARDS = 256  # open files and their parsed headers
RETRY_WAITS_S = (0.5, 2.0, 8.0)  # before a read that failed is tried again; ours
_FIRST_READ_BYTES = 1 << 16  # bytes of the first read; most headers are smaller
_MAX_HEADER_BYTES = 100_000_000  # bytes; the limit of the format
_TORCH_TYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


class _Shard:
    """One safetensors file, of which tensors are read one by one at the offsets of its header.

    The reader of the safetensors library maps a local file. This one also reads S3, and several threads can
    use it.
    """

    def __init__(self, folder: Storage, rel: str) -> None:
        self._folder, self._rel = folder, rel
        self._lock = threading.Lock()
        self._file: pa.NativeFile | None = None
        self._header: dict[str, Any] = {}
        self._start = 0

    def read_tensor(self, name: str) -> Tensor:
        """Read one tensor; a read that fails is tried again on a handle that is opened anew.

        Raises:
            TransientStorageError: the disk or the store did not answer, however often it was asked.
            DamagedDataError: the file or the tensor is missing or damaged.
        """
        waits = iter(RETRY_WAITS_S)
        while True:
            try:
                return self._read_tensor(name)
            except DamagedDataError:
                raise
            except (FileNotFoundError, ValueError, KeyError, TypeError, RuntimeError) as error:
                raise DamagedDataError(
                    f"cannot read {self._where} ({_join_lines(error)}): encode again into an empty folder"
                ) from error
            except (OSError, TransientStorageError) as error:
                self._close_file()  # a handle may never work again once its disk or store went away
                wait = next(waits, None)
                if wait is None:
                    tries = len(RETRY_WAITS_S) + 1
                    raise TransientStorageError(
                        f"cannot read {self._where}, tried {tries} times: {_join_lines(error)}"
                    ) from error
                time.sleep(wait)
            except StorageError as error:
                raise DamagedDataError(str(error)) from error

    def _read_tensor(self, name: str) -> Tensor:
        file = self._open_file()
        found = self._header.get(name)
        if found is None:
            raise DamagedDataError(f"{self._where} has no tensor {name}: encode again into an empty folder")
        begin, end = found["data_offsets"]
        data = file.read_at(end - begin, self._start + begin)
        if len(data) != end - begin:
            raise DamagedDataError(f"{self._where} is cut short: encode again into an empty folder")
        # bytearray, because torch needs writable memory.
        return torch.frombuffer(bytearray(data), dtype=_TORCH_TYPES[found["dtype"]]).reshape(found["shape"])

    def _close_file(self) -> None:
        with self._lock:
            self._file = None  # closed when its last reader is done

    @property
    def _where(self) -> str:
        return self._folder.join_path(self._rel)

    def _open_file(self) -> pa.NativeFile:
        with self._lock:
            if self._file is None:
                file = self._folder.open_input(self._rel)
                head = file.read_at(_FIRST_READ_BYTES, 0)
                size = int.from_bytes(head[:8], "little")
                if size > _MAX_HEADER_BYTES:
                    raise ValueError("not a safetensors file")
                if size + 8 > len(head):
                    head = file.read_at(size + 8, 0)
                self._header = json.loads(head[8 : size + 8])
                self._start = size + 8
                self._file = file
            return self._file


def _join_lines(error: Exception) -> str:
    return " ".join(str(error).split())


@dataclass(frozen=True)
class EncodedSample:
    """One sample to write: its row of the index without `shard`, and its tensors."""

    row: dict[str, Any]
    video: Tensor  # (C, T, h, w)
    text: Tensor  # (L, D)
    references: Sequence[Tensor] = ()  # each (C, h_i, w_i), by position


def write_part(folder: Storage, samples: Sequence[EncodedSample], fingerprint: str) -> list[dict[str, Any]]:
    """Write some samples as one part; return their complete rows of the index.

    The name of a part is a hash of its keys, so the same work done twice leaves one file. The rows are
    written last, beside the tensors (`<part>.parquet`). A part without them is not finished and is ignored.
    """
    keys = "\n".join(sample.row["key"] for sample in samples)
    name = hashlib.blake2b(keys.encode(), digest_size=10).hexdigest()
    tensors: dict[str, Tensor] = {}
    rows = []
    for sample in samples:
        sample_id = sample.row["sample_id"]
        tensors[f"{sample_id}/video"] = sample.video.contiguous()
        tensors[f"{sample_id}/text"] = sample.text.contiguous()
        for position, reference in enumerate(sample.references):
            tensors[f"{sample_id}/reference/{position}"] = reference.contiguous()
        rows.append({**sample.row, "shard": f"{name}.safetensors"})
    data = save(tensors, metadata={"fingerprint": fingerprint})
    folder.write_bytes(f"{DATA_FOLDER}/{name}.safetensors", data)
    table = record_part(build_index(rows), data)
    folder.write_bytes(f"{DATA_FOLDER}/{name}.parquet", _encode_parquet(table))
    return rows


def write_empty(folder: Storage, text: Tensor) -> None:
    """Write the embedding (L, D) of the empty caption."""
    folder.write_bytes(EMPTY_FILE, save({"text": text.contiguous()}))


def finish_latents(folder: Storage, rows: Iterable[Mapping[str, Any]], manifest: LatentsManifest) -> None:
    """Write the index, sorted by sample id, the records of all files, and then the manifest.

    The order of the index does not depend on which worker encoded which sample.
    """
    table = build_index(sorted(rows, key=lambda row: str(row["sample_id"])))
    folder.write_bytes(INDEX_FILE, _encode_parquet(table))
    parts = {f"{DATA_FOLDER}/{name}" for name in table["shard"].unique().to_pylist()}
    write_records(folder, parts, (INDEX_FILE, EMPTY_FILE, DROPPED_FILE))
    folder.write_bytes(MANIFEST_FILE, (manifest.model_dump_json(indent=2) + "\n").encode())


def build_index(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Build a table of `INDEX_SCHEMA` from rows.

    Raises:
        ValueError: a row lacks a column, or has a column that is not in the schema.
    """
    for row in rows:
        if set(row) != set(INDEX_SCHEMA.names):
            raise ValueError(
                f"row {row.get('sample_id')}: columns {sorted(set(row) ^ set(INDEX_SCHEMA.names))}"
            )
    return pa.Table.from_pylist([dict(row) for row in rows], schema=INDEX_SCHEMA)


def read_latents_manifest(folder: Storage) -> LatentsManifest:
    """Read the manifest of a folder of latents.

    Raises:
        RepriseError: there is none, the latents are not finished, or it has another schema.
    """
    data = read_json_object(folder, MANIFEST_FILE)
    if data is None:
        if folder.exists(DATA_FOLDER):
            raise RepriseError(f"the latents in {folder.uri} are not finished: run `reprise encode` again")
        raise RepriseError(f"no latents in {folder.uri}: it has no {MANIFEST_FILE}")
    version = data.get("schema_version")
    if version != SCHEMA_VERSION:
        raise RepriseError(
            f"{folder.uri} was written with version {version} of the latents' schema, this is version "
            f"{SCHEMA_VERSION}: encode again into an empty folder"
        )
    try:
        return LatentsManifest.model_validate(data)
    except ValidationError as error:
        raise RepriseError(f"{folder.join_path(MANIFEST_FILE)} is not a manifest of latents") from error


def read_index(folder: Storage, rel: str = INDEX_FILE) -> pa.Table:
    """Read the index of a folder of latents, or the rows of one part, as a table of `INDEX_SCHEMA`.

    Raises:
        RepriseError: the file is missing, is not Parquet, or lacks a column.
    """
    where = folder.join_path(rel)
    try:
        with folder.open_input(rel) as file:
            table = pq.read_table(file)
    except pa.ArrowException as error:
        raise RepriseError(f"{where} is not Parquet, or cut short: {' '.join(str(error).split())}") from error
    missing = [name for name in INDEX_SCHEMA.names if name not in table.column_names]
    if missing:
        raise RepriseError(f"{where} has no column {', '.join(missing)}: is it an index of latents?")
    try:
        return table.select(INDEX_SCHEMA.names).cast(INDEX_SCHEMA)
    except pa.ArrowException as error:
        raise RepriseError(f"{where} has columns of other types: {' '.join(str(error).split())}") from error


def _encode_parquet(table: pa.Table) -> bytes:
    memory = io.BytesIO()
    pq.write_table(table, memory, compression="zstd")
    return memory.getvalue()
