"""The vectors of an embedding as files that programs without maed read: numpy's format, CSV and ONNX."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from maed._version import __version__
from maed.embedding.position_embedding import PositionEmbedding
from maed.errors import MaedError, require_extra
from maed.files import replacing

_OPSET, _IR = 13, 8
"""Old enough for the runtimes in use: of 2020 and 2021."""


def write_npy(embedding: PositionEmbedding, path: str | Path, *, rms: float | None = None) -> None:
    """Write the vectors for numpy: float32 `(N, d)`.

    Args:
        embedding: Whose vectors.
        path: a file, replaced if it exists.
        rms: Root mean square over all entries; as they are by default.

    Raises:
        MaedError: `rms` is not above 0.

    Example:
        >>> write_npy(embedding, "vectors.npy")
        >>> np.load("vectors.npy").shape
        (1024, 64)
    """
    table = _table(embedding, rms)
    with replacing(Path(path)) as temporary, temporary.open("wb") as file:
        np.save(file, table)


def write_csv(embedding: PositionEmbedding, path: str | Path, *, rms: float | None = None) -> None:
    """Write the vectors as CSV: a header `c0,c1,...`, then one row a position, in its order.

    Numbers have 9 digits, from which float32 is read back bit for bit. Where positions have names, these are the first
    column, `position`.

    Args:
        embedding: Whose vectors.
        path: a file, replaced if it exists.
        rms: Root mean square over all entries; as they are by default.

    Raises:
        MaedError: `rms` is not above 0.

    Example:
        >>> write_csv(embedding, "vectors.csv")
        >>> np.loadtxt("vectors.csv", delimiter=",", skiprows=1, dtype=np.float32).shape
        (1024, 64)
    """
    table = _table(embedding, rms)
    header = [f"c{channel}" for channel in range(table.shape[1])]
    with replacing(Path(path)) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        if embedding.names is None:
            np.savetxt(file, table, fmt="%.9g", delimiter=",", header=",".join(header), comments="")
        else:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(["position", *header])
            for name, vector in zip(embedding.names, table.tolist(), strict=True):
                rows.writerow([name, *(f"{value:.9g}" for value in vector)])


def write_onnx(embedding: PositionEmbedding, path: str | Path, *, rms: float | None = None, rank: int = 1) -> None:
    """Write the vectors as an ONNX model that looks them up, to stand alone or in front of another model.

    Its input `index` (int64) says which positions, counted from 0; its output `vectors` (float32) has one axis more,
    of length d. Source, label, fingerprint of the embedding and maed's version are in its metadata.

    Args:
        embedding: Whose vectors.
        path: a file, replaced if it exists.
        rms: Root mean square over all entries; as they are by default.
        rank: Number of axes that the model declares for `index`: 1 for a list of positions, 2 for a batch of lists.
            ONNX asks for a number, and onnxruntime holds on to it; the look-up itself takes any.

    Raises:
        MaedError: `rms` is not above 0, or onnx is not installed.

    Example:
        >>> write_onnx(embedding, "vectors.onnx")
        >>> onnxruntime.InferenceSession("vectors.onnx").run(None, {"index": np.arange(1024)})[0].shape
        (1024, 64)
    """
    require_extra("format", "onnx")
    import onnx  # an optional extra
    from onnx import TensorProto, helper, numpy_helper

    table = _table(embedding, rms)
    axes = [f"axis{axis}" for axis in range(rank)]
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "index"], ["vectors"], axis=0)],
        "position embedding",
        [helper.make_tensor_value_info("index", TensorProto.INT64, axes)],
        [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, [*axes, table.shape[1]])],
        [numpy_helper.from_array(table, "table")],
    )
    model = helper.make_model(
        graph,
        producer_name="maed",
        producer_version=__version__,
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR,
    )
    origin = {"source": embedding.source, "label": embedding.label, "fingerprint": embedding.fingerprint}
    scale = {} if rms is None else {"rms": str(rms)}  # the fingerprint is that of the vectors before they were scaled
    helper.set_model_props(model, {**origin, **scale, "maed": __version__})
    onnx.checker.check_model(model, full_check=True)
    with replacing(Path(path)) as temporary:
        temporary.write_bytes(model.SerializeToString())


WRITERS: dict[str, Callable[..., None]] = {"npy": write_npy, "csv": write_csv, "onnx": write_onnx}
"""The writer of each format, called with an embedding, a path and `rms=`."""


def _table(embedding: PositionEmbedding, rms: float | None) -> np.ndarray:
    """The vectors, scaled where that is asked for, `(N, d)` float32."""
    if rms is None:
        return embedding.numpy()
    if not 0 < rms < math.inf:
        raise MaedError(f"rms must be a number above 0, got {rms}")
    return embedding.table(rms=rms).numpy()
