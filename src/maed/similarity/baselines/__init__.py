"""Baselines, a file each; `maed.similarity.Baseline` says what they are."""
