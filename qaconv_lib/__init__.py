"""Query-adaptive convolution and temporal lifting for person re-identification.

The library that the QAConv book builds. The names below can be imported from here; they are loaded
at first use, so that the command line need not wait for PyTorch.
"""

import importlib
from typing import Any

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
