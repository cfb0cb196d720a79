"""The stages from signals to an embedding, and what runs them."""

from maed.run_folder import RunFolder
from maed.stages.base import Context, Stage, execute, run_stage
from maed.stages.baseline import Baseline
from maed.stages.choose import choose_method, make_candidates, sentence
from maed.stages.embed import Embed, NoDependence, embed_folder
from maed.stages.evaluate import check_evaluation, evaluate, evaluate_start
from maed.stages.pretrain import Pretrain
from maed.stages.similarity import Similarity, left_out, methods_of, needs_all_pairs, noise_note

__all__ = [
    "Baseline",
    "Context",
    "Embed",
    "NoDependence",
    "Pretrain",
    "RunFolder",
    "Similarity",
    "Stage",
    "check_evaluation",
    "choose_method",
    "embed_folder",
    "evaluate",
    "evaluate_start",
    "execute",
    "left_out",
    "make_candidates",
    "methods_of",
    "needs_all_pairs",
    "noise_note",
    "run_stage",
    "sentence",
]
