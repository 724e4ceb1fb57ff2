"""Query-adaptive convolution and temporal lifting for person re-identification.

The library that the QAConv book builds. The names below can be imported from here; they are loaded
at first use, so that the command line need not wait for PyTorch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qaconv_lib.backbones import make_backbone as make_backbone
    from qaconv_lib.beyond.export import export_onnx as export_onnx
    from qaconv_lib.beyond.released import load_released as load_released
    from qaconv_lib.beyond.tfusion import tfusion as tfusion
    from qaconv_lib.config import TrainingConfig as TrainingConfig
    from qaconv_lib.datasets import ReidDataset as ReidDataset
    from qaconv_lib.datasets import load_dataset as load_dataset
    from qaconv_lib.datasets import load_image as load_image
    from qaconv_lib.evaluation import RankingScores as RankingScores
    from qaconv_lib.evaluation import evaluate_ranking as evaluate_ranking
    from qaconv_lib.losses import focal_loss as focal_loss
    from qaconv_lib.matching import QAConv as QAConv
    from qaconv_lib.matching import best_matches as best_matches
    from qaconv_lib.matching import correlate as correlate
    from qaconv_lib.matching import find_correspondences as find_correspondences
    from qaconv_lib.matching import match_gallery as match_gallery
    from qaconv_lib.matching import query_kernels as query_kernels
    from qaconv_lib.memory import ClassMemory as ClassMemory
    from qaconv_lib.models import ReidModel as ReidModel
    from qaconv_lib.models import load_model as load_model
    from qaconv_lib.models import save_model as save_model
    from qaconv_lib.reranking import k_reciprocal_rerank as k_reciprocal_rerank
    from qaconv_lib.scale.streaming import rerank_streaming as rerank_streaming
    from qaconv_lib.scale.streaming import vector_distances as vector_distances
    from qaconv_lib.temporal import tlift as tlift
    from qaconv_lib.training import Trainer as Trainer

__version__ = "0.1.0"
_MODULES = {
    "backbones": ["make_backbone"],
    "beyond.export": ["export_onnx"],
    "beyond.released": ["load_released"],
    "beyond.tfusion": ["tfusion"],
    "config": ["TrainingConfig"],
    "datasets": ["ReidDataset", "load_dataset", "load_image"],
    "evaluation": ["RankingScores", "evaluate_ranking"],
    "losses": ["focal_loss"],
    "matching": ["QAConv", "best_matches", "correlate", "find_correspondences", "match_gallery",
                 "query_kernels"],
    "memory": ["ClassMemory"],
    "models": ["ReidModel", "load_model", "save_model"],
    "reranking": ["k_reciprocal_rerank"],
    "scale.streaming": ["rerank_streaming", "vector_distances"],
    "temporal": ["tlift"],
    "training": ["Trainer"],
}  # fmt: skip
_HOME = {name: module for module, names in _MODULES.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
