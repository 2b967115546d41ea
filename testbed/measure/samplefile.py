"""Samples on disk: compressed numpy columns in a zip, beside the result that names them."""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from testbed.measure.atomic import write_atomically
from testbed.measure.result_parts import SamplesRecord
from testbed.measure.resultfile import ResultFileError, read_bounded
from testbed.samples import ARRIVAL, SENT, Samples

FORMAT: Final = "mrc-testbed/samples/1"
#: Compressed; ten million packets come to about 100 MB.
MOST_BYTES: Final = 1 << 30
#: Rows are 32 bytes in memory; this many of both tables are 6.4 GB.
MOST_ROWS: Final = 100_000_000

_TABLES: Final = {"sent": SENT, "arrivals": ARRIVAL}
#: Sequence numbers and stamps grow evenly: their differences compress, they themselves do not.
_DIFFERENCES: Final = frozenset({"seq", "t_ns"})
_CHUNK = 1 << 20


def save_samples(samples: Samples, path: Path) -> SamplesRecord:
    """Write samples in one step, and return the reference by which a result in the same folder names them.

    Raises:
        InfrastructureError: the folder is missing, full or not writable.

    """
    about = {
        "format": FORMAT,
        "flows": samples.flows,
        "waiting_time_ns": samples.waiting_time_ns,
        "send_error_ns": samples.send_error_ns,
        "receiver_drops": samples.receiver_drops,
    }
    columns = {"about": np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)}
    for table, rows in (("sent", samples.sent), ("arrivals", samples.arrivals)):
        for column in _columns(table):
            values = np.ascontiguousarray(rows[column])
            columns[f"{table}.{column}"] = _differences(values) if column in _DIFFERENCES else values
    digest, size = hashlib.sha256(), 0

    def write(file: BinaryIO) -> None:
        nonlocal size
        np.savez_compressed(file, allow_pickle=False, **columns)
        size = file.tell()
        file.seek(0)
        while chunk := file.read(_CHUNK):
            digest.update(chunk)

    write_atomically(path, write)
    return SamplesRecord(
        file=path.name,
        sha256=digest.hexdigest(),
        size_bytes=size,
        rows={"sent": int(samples.sent.size), "arrivals": int(samples.arrivals.size)},
    )


def load_samples(record: SamplesRecord, folder: Path) -> Samples:
    """Read the samples that a result names.

    Args:
        record: the result's reference.
        folder: where the result file is.

    Raises:
        ResultFileError: the file is missing, not the one the result was made with, or damaged.

    """
    path = folder / record.file
    raw = read_bounded(path, MOST_BYTES)
    found = hashlib.sha256(raw).hexdigest()
    if found != record.sha256:
        raise ResultFileError(
            "these are not the samples this result was made with",
            where=str(path),
            found=f"sha256 {found}, {len(raw)} bytes",
            expected=f"sha256 {record.sha256}, {record.size_bytes} bytes",
        )
    try:
        samples = _decode(raw)
    except (ValueError, KeyError, TypeError, EOFError, OSError, zlib.error, zipfile.BadZipFile) as error:
        raise ResultFileError("these samples are damaged", where=str(path), found=str(error)) from None
    rows = {"sent": samples.sent.size, "arrivals": samples.arrivals.size}
    if rows != record.rows:
        raise ResultFileError(
            "these samples have other rows than the result says",
            where=str(path),
            found=str(rows),
            expected=str(record.rows),
        )
    return samples


def _decode(raw: bytes) -> Samples:
    with zipfile.ZipFile(BytesIO(raw)) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > MOST_ROWS * (SENT.itemsize + ARRIVAL.itemsize):
        raise ValueError(f"they unpack to {unpacked} bytes")
    with np.load(BytesIO(raw), allow_pickle=False) as columns:
        about: dict[str, Any] = json.loads(columns["about"].tobytes())
        if about["format"] != FORMAT:
            raise ValueError(f"their format is {about['format']!r}, not {FORMAT}")
        return Samples(
            flows=tuple(about["flows"]),
            sent=_table(columns, "sent"),
            arrivals=_table(columns, "arrivals"),
            waiting_time_ns=about["waiting_time_ns"],
            send_error_ns=about["send_error_ns"],
            receiver_drops=about["receiver_drops"],
        )


def _columns(table: str) -> list[str]:
    return [name for name in _TABLES[table].names or () if name != "pad"]


def _table(columns: Any, table: str) -> npt.NDArray[np.void]:
    kind = _TABLES[table]
    rows = np.zeros(columns[f"{table}.seq"].size, dtype=kind)
    for name in _columns(table):
        values = columns[f"{table}.{name}"]
        if values.dtype != kind[name]:
            raise ValueError(f"column {table}.{name} is {values.dtype}, not {kind[name]}")
        rows[name] = np.cumsum(values, dtype=kind[name]) if name in _DIFFERENCES else values
    return rows


def _differences(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The first value and each one's difference to the one before, modulo 2^64; a cumulative sum undoes it."""
    if not values.size:
        return values
    return np.concatenate([values[:1], values[1:] - values[:-1]])
