"""How long a large table takes to be read, and what memory, beside pandas' own reading: 50,000 x 1,000 numbers.

    python benchmarks/files.py [--rows 50000] [--columns 1000] [--folder /tmp]

Files are made in a temporary folder and removed. Each reading runs in a process of its own, so that its peak memory is
its own; "beyond imports" is the peak without what the process had taken before it read.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

from maed.machine import commit, describe_machine


def make(folder: Path, rows: int, columns: int) -> list[Path]:
    """A .csv and a .parquet file of the same numbers, written in pieces."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    names, generator = [f"s{i}" for i in range(columns)], np.random.default_rng(0)
    paths = [folder / "x.csv", folder / "x.parquet"]
    schema = pa.schema([(name, pa.float64()) for name in names])
    with pa.csv.CSVWriter(paths[0], schema) as text, pa.parquet.ParquetWriter(paths[1], schema) as parquet:
        for start in range(0, rows, 1_000):
            values = generator.normal(size=(min(1_000, rows - start), columns)).round(5)
            piece = pa.table(list(values.T.copy()), schema=schema)
            text.write(piece)
            parquet.write(piece)
    return paths


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def one(reader: str, path: Path) -> dict[str, float]:
    """Seconds, and the peak of memory in GiB, of one reading in this process."""
    import pandas as pd

    from maed.data import load
    from maed.data.delimited import read_delimited
    from maed.data.tables import read_parquet
    from maed.settings import DataSettings

    before, started = peak(), time.monotonic()
    is_text = path.suffix == ".csv"
    if reader == "pandas":
        frame = pd.read_csv(path) if is_text else pd.read_parquet(path)
        shape = frame.shape
    elif reader == "maed, the table":
        table = read_delimited(path) if is_text else read_parquet([path])
        shape = table.shape
    else:
        data = load(str(path), DataSettings())
        shape = (len(data.train) + len(data.validation) + len(data.test), data.positions)
    return {
        "seconds": time.monotonic() - started,
        "peak": peak(),
        "beyond": peak() - before,
        "cells": float(np.prod(shape)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--columns", type=int, default=1_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one is not None:
        warnings.simplefilter("ignore")
        print(json.dumps(one(given.one[0], Path(given.one[1]))))
        return
    machine = describe_machine()
    print("| File | Read by | Seconds | Peak, GiB | Beyond imports, GiB |\n| --- | --- | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        for path in make(Path(folder), given.rows, given.columns):
            size = path.stat().st_size / 2**30
            for reader in ("pandas", "maed, the table", "maed, signals"):
                command = [sys.executable, __file__, "--one", reader, str(path)]
                found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                assert found["cells"] == given.rows * given.columns
                row = f"{found['seconds']:.1f} | {found['peak']:.2f} | {found['beyond']:.2f}"
                print(f"| `{path.suffix}`, {size:.2f} GiB | {reader} | {row} |", flush=True)
    print(
        f"\n{given.rows:,} x {given.columns:,}; commit {commit()}; {machine['processor']}, {machine['threads']} threads"
    )


if __name__ == "__main__":
    main()
