"""Prints the tables of the page "Model card": the shipped models and how they score.

Everything is read from the checkpoints in `data/checkpoints` and from the records of their runs.
"""

from __future__ import annotations

import pandas as pd
from safetensors import safe_open

from qaconv_lib.experiments.comparisons import LABELS
from qaconv_lib.experiments.records import read_records, results_folder
from qaconv_lib.experiments.runs import STAGES
from qaconv_lib.experiments.tables import to_markdown

HARD_SPACE = "\u00a0"
KEY = ("loss", "source", "profile", "seed")


def shipped() -> list[str]:
    """File names of the models that come with the book, without their ending."""
    folder = results_folder().parent / "checkpoints"
    return sorted(path.stem for path in folder.glob("*.safetensors"))


def name_of(record: dict) -> str:
    """The name that a record's model has as a file; empty for other settings than the profile's."""
    loss, source, profile, seed = (record[key] for key in KEY)
    return "" if record["settings"] else f"{loss}-{source}-{profile}-seed{seed}"


def model_label(record: dict) -> str:
    """How a table names a model: its loss and what it was trained on."""
    return f"{LABELS[record['loss']]}, {record['source']}"


def cell(found: dict | None) -> str:
    """Rank-1 / mAP in percent, kept on one line; a dash where a stage was not tested."""
    if found is None:
        return "–"
    return f"{100 * found['rank1']:.1f}{HARD_SPACE}/{HARD_SPACE}{100 * found['mean_ap']:.1f}"


def made_table(names: list[str]) -> pd.DataFrame:
    """How each model was made."""
    records = {name_of(record): record for record in read_records("train")}
    rows = {}
    for name in names:
        path = results_folder().parent / "checkpoints" / f"{name}.safetensors"
        with safe_open(path, framework="pt") as file:
            numbers = sum(file.get_tensor(key).numel() for key in file.keys())  # noqa: SIM118
        record, config = records[name], records[name]["config"]
        rows[model_label(record)] = {
            "layer": config["final_layer"],
            "images": f"{record['images']:,}",
            "people": record["num_identities"],
            "pixels": f"{config['height']} × {config['width']}".replace(" ", HARD_SPACE),
            "minutes": f"{record['seconds'] / 60:.1f}",
            "weights": f"{numbers:,}",
            "MB": f"{path.stat().st_size / 1e6:.1f}",
        }
    return pd.DataFrame(rows).T


def scores_table(names: list[str]) -> pd.DataFrame:
    """Rank-1 / mAP in percent of each model on each miniature it was tested on."""
    rows: dict[str, dict[str, str]] = {}
    for record in read_records("evaluate"):
        if name_of(record) in names:
            row = rows.setdefault(f"{model_label(record)} → {record['target']}", {})
            for stage in STAGES:
                row[stage.replace("+", " + ").strip()] = cell(record["stages"].get(stage))
    return pd.DataFrame(rows).T


def devices(folder: str, names: list[str]) -> str:
    """The devices that the records of the models name."""
    return "; ".join(sorted({r["device"] for r in read_records(folder) if name_of(r) in names}))


def main() -> None:
    names = shipped()
    print(to_markdown(made_table(names)))
    print(f"\nTrained on {devices('train', names)}.\n")
    print(to_markdown(scores_table(names)))
    print(f"\nRank-1 / mAP in percent, one seed; tested on {devices('evaluate', names)}.")


if __name__ == "__main__":
    main()
