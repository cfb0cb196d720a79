"""Texts to bytes, with the ids of transformers' PerceiverTokenizer, a whole column at a time."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa

from maed.errors import MaedError

SPECIAL = ("[PAD]", "[BOS]", "[EOS]", "[MASK]", "[CLS]", "[SEP]")
"""The special tokens; their ids are their places. Byte b has id `b + 6`."""

PAD, BOS, EOS, MASK, CLS, SEP = range(6)
VOCABULARY = len(SPECIAL) + 256

_LITERAL = re.compile(b"|".join(re.escape(token.encode()) for token in SPECIAL))
_ROWS = 2048  # of a block: its index arrays stay below 100 MB at 2,048 positions


def tokenize(texts: pa.Array | pa.ChunkedArray | list[str], length: int) -> tuple[np.ndarray, np.ndarray]:
    """Bytes of texts, as `PerceiverTokenizer(truncation=True, padding="max_length", max_length=length)` gives them.

    `[CLS]` first, then the UTF-8 bytes, `[SEP]`, and `[PAD]` up to `length`. A special token that a text spells out
    (`"[MASK]"`) becomes that token, as the tokenizer has it.

    Args:
        texts: n texts.
        length: Positions of each, 3 or more.

    Returns:
        Ids `(n, length)` int16, and the mask `(n, length)` bool of ids that are not `[PAD]`.

    Raises:
        MaedError: a missing text, or a length that leaves no room for bytes.
    """
    if length < 3:
        raise MaedError(f"data.length must be at least 3, for [CLS], bytes and [SEP], got {length}")
    column = pa.chunked_array([pa.array(texts, pa.large_string())] if isinstance(texts, list) else texts)
    if column.null_count:
        raise MaedError(f"text: {column.null_count} of {len(column)} texts are missing")
    column = column.cast(pa.large_string())
    ids, places = np.zeros((len(column), length), dtype=np.int16), np.arange(length - 2)
    start = 0
    for chunk in column.chunks:
        for first in range(0, len(chunk), _ROWS):
            flat, offsets = _flat(chunk.slice(first, _ROWS))
            sizes = np.minimum(np.diff(offsets), length - 2)  # as many bytes as fit
            block = ids[start : start + len(sizes)]  # (m, length), all [PAD] so far
            there = places < sizes[:, None]  # (m, length - 2)
            block[:, 1:-1][there] = flat[(offsets[:-1, None] + places)[there]]
            block[:, 0] = CLS
            block[np.arange(len(block)), sizes + 1] = SEP
            start += len(block)
    return ids, ids != PAD


def _flat(texts: pa.LargeStringArray) -> tuple[np.ndarray, np.ndarray]:
    """All ids end to end, int16, and the `(m + 1,)` offsets of the texts in them; straight from Arrow's buffers."""
    _, offset_buffer, bytes_buffer = texts.buffers()
    offsets = np.frombuffer(offset_buffer, dtype=np.int64)[texts.offset : texts.offset + len(texts) + 1]
    if bytes_buffer is None:
        return np.zeros(0, dtype=np.int16), offsets - offsets[0]
    raw = np.frombuffer(bytes_buffer, dtype=np.uint8)[offsets[0] : offsets[-1]]
    offsets = offsets - offsets[0]
    return _replace_literals(raw, raw.astype(np.int16) + len(SPECIAL), offsets)


def _replace_literals(raw: np.ndarray, flat: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Special tokens that a text spells out, each as its one id instead of its bytes."""
    # A match that runs from one text into the next is none; it cannot hide a true one, which would start with "["
    # inside it, and no token has a second "[".
    spans = [(m.start(), m.end(), SPECIAL.index(m.group().decode())) for m in _LITERAL.finditer(raw.data)]
    keep = np.ones(len(flat), dtype=bool)
    for start, end, token in spans:
        if np.searchsorted(offsets, start, side="right") == np.searchsorted(offsets, end - 1, side="right"):
            flat[start] = token
            keep[start + 1 : end] = False
    if keep.all():
        return flat, offsets
    before = np.concatenate([[0], np.cumsum(keep)])
    return flat[keep], before[offsets]
