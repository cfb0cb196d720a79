"""Estimators of a similarity, a file each; `maed.similarity.Estimator` says what they are."""
