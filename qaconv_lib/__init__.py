"""Query-adaptive convolution and temporal lifting for person re-identification.

The library that the QAConv book builds, one module a chapter. What the book calls by name can be
imported from here; each function's docstring names the equation or section it implements.
"""

from qaconv_lib.backbones import make_backbone
from qaconv_lib.beyond.export import export_onnx
from qaconv_lib.beyond.released import load_released
from qaconv_lib.beyond.tfusion import tfusion
from qaconv_lib.config import TrainingConfig
from qaconv_lib.datasets import ReidDataset, load_dataset, load_image
from qaconv_lib.evaluation import RankingScores, evaluate_ranking
from qaconv_lib.losses import focal_loss
from qaconv_lib.matching import (
    QAConv,
    best_matches,
    correlate,
    find_correspondences,
    match_gallery,
    query_kernels,
)
from qaconv_lib.memory import ClassMemory
from qaconv_lib.models import ReidModel, load_model, save_model
from qaconv_lib.reranking import k_reciprocal_rerank, rerank_streaming, vector_distances
from qaconv_lib.temporal import tlift
from qaconv_lib.training import Trainer

__version__ = "0.1.0"

__all__ = [
    "ClassMemory",
    "QAConv",
    "RankingScores",
    "ReidDataset",
    "ReidModel",
    "Trainer",
    "TrainingConfig",
    "best_matches",
    "correlate",
    "evaluate_ranking",
    "export_onnx",
    "find_correspondences",
    "focal_loss",
    "k_reciprocal_rerank",
    "load_dataset",
    "load_image",
    "load_model",
    "load_released",
    "make_backbone",
    "match_gallery",
    "query_kernels",
    "rerank_streaming",
    "save_model",
    "tfusion",
    "tlift",
    "vector_distances",
]
