"""Print the tables of the page "Model card": the shipped models and how they score.

Everything is read from the checkpoints in `data/checkpoints` and from the records of their runs.
"""

from __future__ import annotations

import pandas as pd
from safetensors import safe_open

from qaconv_lib.experiments.comparisons import LABELS
from qaconv_lib.experiments.records import read_records
from qaconv_lib.experiments.runs import NAMED, STAGES, Run
from qaconv_lib.experiments.tables import to_markdown


def shipped(folder: str) -> list[tuple[Run, dict]]:
    """The records in a folder that belong to a shipped model, and its run."""
    keys = ("loss", "source", "profile", "seed", "settings")
    found = [(Run(*(record[key] for key in keys)), record) for record in read_records(folder)]
    kept = [pair for pair in found if pair[0].shipped().is_file()]
    return sorted(kept, key=lambda pair: pair[0].shipped())


def label(run: Run) -> str:
    """The name of the model's file, or its loss and what it was trained on."""
    named = [name for name, other in NAMED.items() if other == run]
    return [*named, f"{LABELS.get(run.loss)}, {run.source}"][0]


def cell(found: dict | None) -> str:
    """Rank-1 / mAP in percent, kept on one line; a dash where a stage was not tested."""
    if found is None:
        return "–"
    return f"{100 * found['rank1']:.1f}\u00a0/\u00a0{100 * found['mean_ap']:.1f}"


def made_table() -> pd.DataFrame:
    """How each model was made."""
    rows = {}
    for run, record in shipped("train"):
        path, config = run.shipped(), record["config"]
        with safe_open(path, framework="pt") as file:
            numbers = sum(file.get_tensor(key).numel() for key in file.keys())  # noqa: SIM118
        rows[label(run)] = {
            "layer": config["final_layer"],
            "images": f"{record['images']:,}",
            "people": f"{record['num_identities']:,}",
            "pixels": f"{config['height']}\u00a0×\u00a0{config['width']}",
            "minutes": f"{record['seconds'] / 60:.1f}",
            "weights": f"{numbers:,}",
            "MB": f"{path.stat().st_size / 1e6:.1f}",
        }
    return pd.DataFrame(rows).T


def scores_table() -> pd.DataFrame:
    """Rank-1 / mAP in percent of each model on each miniature it was tested on."""
    rows = {
        f"{label(run)} → {record['target']}": {
            stage.replace("+", " + ").strip(): cell(record["stages"].get(stage)) for stage in STAGES
        }
        for run, record in shipped("evaluate")
    }
    return pd.DataFrame(rows).T


def devices(folder: str) -> str:
    return "; ".join(sorted({record["device"] for _, record in shipped(folder)}))


if __name__ == "__main__":
    print(to_markdown(made_table()))
    print(f"\nTrained on {devices('train')}.\n")
    print(to_markdown(scores_table()))
    print(f"\nRank-1 / mAP in percent, one seed; tested on {devices('evaluate')}.")
