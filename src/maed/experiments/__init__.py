"""Many trainings: trials, comparisons, the whole run."""
