"""Choosing settings on held-out training identities, never on a target (chapters 7 and 12)."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pandas as pd

from qaconv_lib.datasets import validation_split
from qaconv_lib.experiments.profiles import get_profile
from qaconv_lib.experiments.records import provenance, read_records, results_folder, write_record
from qaconv_lib.experiments.runs import Run, score, settings_name, summary
from qaconv_lib.losses import compares_maps


def search(
    loss: str,
    source: str,
    *,
    profile: str = "laptop",
    device: str | None = None,
    progress: bool = False,
) -> list[dict]:
    """Try the profile's candidates on a validation split of the source; write the records.

    The split holds out a quarter of the training identities; a model trained on the others ranks
    them, one query per identity and camera. A pooled model's calibration for TLift (a logistic
    regression of "same person" on the similarity) is fitted on the same pairs. Candidates that have
    a record already are not run again.

    Args:
        loss: one of `LOSSES`.
        source: name of the dataset to train on.
        profile: its `tried` lists the candidates.
        device: e.g. "cpu" or "cuda"; the GPU if there is one.
        progress: show progress bars.

    Returns:
        The records, in the order of the candidates.
    """
    table = Run(loss, source, profile).table()  # refuses an unknown loss
    train, query, gallery = validation_split(table, 0.25, seed=0)
    done = {
        settings_name(record["settings"]): record
        for record in read_records("search")
        if (record["loss"], record["source"], record["profile"]) == (loss, source, profile)
    }
    records = []
    for settings in get_profile(profile).tried[loss]:
        name = settings_name(settings)
        if name not in done:
            trainer = get_profile(profile).config(loss, **settings).trainer(train, device=device)
            start = time.perf_counter()
            model = trainer.train(progress=progress).eval()
            seconds = time.perf_counter() - start
            maps = model.extract(query), model.extract(gallery)
            similarity = model.similarity(*maps).numpy(force=True)
            done[name] = {
                "experiment": "search",
                "loss": loss,
                "source": source,
                "profile": profile,
                "seed": 0,
                "settings": settings,
                "held_out_identities": int(query["identity"].nunique()),
                "scores": summary(score(similarity, query, gallery), per_query=False),
                "calibration": calibrate(similarity, query, gallery),
                "history": trainer.history,
                "seconds": round(seconds, 1),
                **provenance(trainer.device),
            }
            write_record("search", f"{loss}-{source}-{profile}-{name or 'default'}", done[name])
        records.append(done[name])
    return records


def best_settings(loss: str, profile: str, **wanted: Any) -> dict:
    """The candidate with the highest validation mAP, averaged over the sources searched.

    Only candidates with the `wanted` settings count. Unless given, `final_layer` is the one that
    the paper names for the loss, and `triplet_margin` is None: no triplets.
    """
    found: dict[str, list[dict]] = {}
    wanted = {"final_layer": None, "triplet_margin": None} | wanted
    for record in read_records("search"):
        mine = (record["loss"], record["profile"]) == (loss, profile)
        if mine and all(record["settings"].get(key) == value for key, value in wanted.items()):
            found.setdefault(settings_name(record["settings"]), []).append(record)
    if not found:
        raise _not_searched(loss, "SOURCE", profile)
    sources = max(len(records) for records in found.values())
    complete = [records for records in found.values() if len(records) == sources]
    best = max(complete, key=lambda records: np.mean([r["scores"]["mean_ap"] for r in records]))
    return best[0]["settings"]


def calibration_of(loss: str, source: str, profile: str) -> list[float] | None:
    """Slope and offset of the best settings' calibration on a source; None where maps are compared.

    FileNotFoundError names the command if no search has been run on this source.
    """
    if compares_maps(loss):
        return None
    wanted = (loss, source, profile, best_settings(loss, profile))
    for record in read_records("search"):
        if tuple(record[key] for key in ("loss", "source", "profile", "settings")) == wanted:
            return record["calibration"]
    raise _not_searched(loss, source, profile)


def _not_searched(loss: str, source: str, profile: str) -> FileNotFoundError:
    return FileNotFoundError(
        f"no search of {loss} on {source} at the {profile} profile in {results_folder()}; run "
        f"`python -m qaconv_lib tune {loss} {source} --profile {profile}`"
    )


def calibrate(similarity: np.ndarray, query: pd.DataFrame, gallery: pd.DataFrame) -> list[float]:
    """Slope and offset of the logit of "same person", from pairs of different cameras."""
    from sklearn.linear_model import LogisticRegression

    other = query["camera"].to_numpy()[:, None] != gallery["camera"].to_numpy()
    same = query["identity"].to_numpy()[:, None] == gallery["identity"].to_numpy()
    fit = LogisticRegression(C=1e6, max_iter=1000).fit(similarity[other][:, None], same[other])
    return [round(float(fit.coef_[0, 0]), 4), round(float(fit.intercept_[0]), 4)]
