"""Reductions, a file each; `maed.embedding.Reduction` says what they are."""
