"""Measuring geometry, and comparing accuracies over seeds."""
