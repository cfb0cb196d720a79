"""Reconstructed token signals as marked pieces of text, which a template can escape and color."""

from __future__ import annotations

from itertools import groupby

import numpy as np

SPECIALS = 6
"""Ids below this are special in transformers' byte vocabulary (`PerceiverTokenizer`); a byte is its id minus this."""

HIDDEN = "·"
UNPRINTABLE = "▫"

Pieces = list[tuple[str, str]]
"""Runs of text, each with how it is to be marked: `hidden`, `wrong`, `guessed` or `plain`."""


def text_examples(
    original: np.ndarray, visible: np.ndarray, reconstruction: np.ndarray, order: np.ndarray, most: int = 600
) -> list[dict[str, Pieces]]:
    """The visible tokens, their reconstruction and the original, for each signal.

    Args:
        original: `(S, N)` token ids.
        visible: `(S, N)` bool.
        reconstruction: `(S, N)` the most likely ids.
        order: `(N,)` positions in true order (in storage order where that is unknown).
        most: Positions that are shown of each signal.

    Returns:
        For each signal `shown`, `reconstructed` and `original`. Ids are read as bytes where they look like text,
        and written as numbers elsewhere.
    """
    name = _as_byte if looks_like_bytes(original) else "{} ".format
    examples = []
    for ids, seen, made in zip(original[:, order], visible[:, order], reconstruction[:, order], strict=True):
        end = min(most, int(np.flatnonzero(ids != ids[-1]).max(initial=-1)) + 2) if len(ids) else 0
        ids, seen, made = ids[:end], seen[:end], made[:end]
        truth, guess = [name(i) for i in ids], [name(i) for i in made]
        guesses = ["plain" if s else "guessed" if g == t else "wrong" for s, g, t in zip(seen, made, ids, strict=True)]
        mixed = [t if s else g for s, t, g in zip(seen, truth, guess, strict=True)]
        shown = [t if s else HIDDEN for s, t in zip(seen, truth, strict=True)]
        examples.append(
            {
                "shown": _pieces(shown, ["plain" if s else "hidden" for s in seen]),
                "reconstructed": _pieces(mixed, guesses),
                "original": _pieces(truth, ["plain"] * len(truth)),
            }
        )
    return examples


def looks_like_bytes(ids: np.ndarray) -> bool:
    """True if ids fit the byte vocabulary and most of those that are not special are printable."""
    characters = ids[ids >= SPECIALS] - SPECIALS
    if ids.max(initial=0) >= 256 + SPECIALS or not len(characters):
        return False
    return float(np.mean((characters >= 32) & (characters < 127))) > 0.5


def _as_byte(token: int) -> str:
    byte = int(token) - SPECIALS
    if byte in (9, 10, 13):
        return " "
    return chr(byte) if 32 <= byte < 127 else UNPRINTABLE


def _pieces(texts: list[str], marks: list[str]) -> Pieces:
    """Neighbors with the same mark as one piece: a page of single letters would be large."""
    grouped = groupby(zip(marks, texts, strict=True), key=lambda pair: pair[0])
    return [(mark, "".join(text for _, text in group)) for mark, group in grouped]
