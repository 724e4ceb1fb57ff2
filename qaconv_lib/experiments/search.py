"""Choosing settings on held-out training identities, never on a target (chapters 7 and 12)."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pandas as pd

from qaconv_lib._files import check_writable
from qaconv_lib.datasets import validation_split
from qaconv_lib.experiments import records, runs
from qaconv_lib.experiments.profiles import get_profile, rates
from qaconv_lib.experiments.runs import settings_name
from qaconv_lib.losses import compares_maps

# The paper's rates first, then larger ones: the schedule is a twelfth of the paper's.
_RATES = [(0.01, 0.001), (0.02, 0.02), (0.05, 0.01), (0.05, 0.05), (0.1, 0.1), (0.2, 0.2)]
# What the laptop profile tries, by loss. The losses after softmax: what they have of their own, at
# the rates that softmax and QAConv do best with. Arc loss has a steeper gradient, and was tried at
# lower ones too. A row whose best candidate lay at its end was made longer.
_TRIED = {
    "qaconv": [rates(*pair) for pair in _RATES],
    # Two pooled baselines are tried on the layer that QAConv takes, too, for `pooled-layer`.
    "softmax": [rates(*pair) for pair in _RATES]
    + [rates(*pair, final_layer="layer3") for pair in [*_RATES[1:], (0.4, 0.4)]],
    "arc": [
        rates(rate, rate, margin=margin)
        for rate, margin in ((0.1, 0.2), (0.1, 0.5), (0.05, 0.2), (0.02, 0.2), (0.02, 0.5))
    ]
    + [rates(0.01, 0.01, margin=0.5)]
    + [rates(rate, rate, margin=0.5, final_layer="layer3") for rate in (0.01, 0.02, 0.05, 0.1)],
    "center": [rates(0.1, 0.1, center_weight=weight) for weight in (0.0005, 0.005, 0.05, 0.5)],
    "class-memory": [rates(rate, rate) for rate in (0.02, 0.05, 0.1, 0.2)],
    # Cross-entropy and triplets at the rates around QAConv's best. With triplets the scale of the
    # matcher falls to zero at all of these; they want a low rate of the new layers (appendix C).
    "pairwise": [
        rates(rate, rate, triplet_margin=margin)
        for margin, tried in ((None, (0.005, 0.01)), (16.0, (0.002, 0.005, 0.01)))
        for rate in (*tried, 0.02, 0.05, 0.1, 0.2)
    ]
    + [rates(0.0005, trunk, triplet_margin=16.0) for trunk in (0.05, 0.1, 0.2)]
    + [rates(0.0005, 0.05, triplet_margin=16.0, images_per_identity=2)]
    + [rates(0.1, 0.1, triplet_margin=4.0), rates(0.1, 0.1, images_per_identity=2)],
}


def tried_settings(loss: str, profile: str) -> list[dict]:
    """The settings that `search` tries; at profiles other than laptop only those they have."""
    return _TRIED[loss] if profile.split("+")[0] == "laptop" else [{}]


def search(
    loss: str,
    source: str,
    *,
    profile: str = "laptop",
    device: str | None = None,
    progress: bool = False,
) -> list[dict]:
    """Try `tried_settings` on a validation split of the source; write and return the records.

    The split holds out a quarter of the training identities; a model trained on the others ranks
    them, one query per identity and camera. A pooled model's calibration for TLift (a logistic
    regression of "same person" on the similarity) is fitted on the same pairs. Candidates that have
    a record already are not run again.
    """
    runs.look_again()
    check_writable(records.results_folder() / "search")
    run = runs.Run(loss, source, profile)  # refuses an unknown loss
    train, query, gallery = validation_split(run.table(), 0.25, seed=0)
    known = [record for record in _records(loss, profile) if record["source"] == source]
    done = {settings_name(record["settings"]): record for record in known}
    tried = {settings_name(settings): settings for settings in tried_settings(loss, profile)}
    for name, settings in tried.items():
        if name in done:
            continue
        trainer = get_profile(profile).config(loss, **settings).trainer(train, device=device)
        start = time.perf_counter()
        model = trainer.train(progress=progress).eval()
        seconds = time.perf_counter() - start
        maps = model.extract(query), model.extract(gallery)
        similarity = model.similarity(*maps).numpy(force=True)
        done[name] = {
            "experiment": "search",
            **run.about,
            "settings": settings,
            "held_out_identities": int(query["identity"].nunique()),
            "scores": runs.summary(similarity, query, gallery, per_query=False),
            "calibration": calibrate(similarity, query, gallery),
            "history": trainer.history,
            "seconds": round(seconds, 1),
            **records.provenance(trainer.device),
        }
        label = runs.file_label(source, "train")
        records.write_record("search", f"{loss}-{label}-{profile}-{name or 'default'}", done[name])
    return [done[name] for name in tried]


def best_settings(loss: str, profile: str, **wanted: Any) -> dict:
    """The candidate with the highest validation mAP, averaged over the sources searched.

    Only those with the `wanted` settings count; by default, on the usual layer and no triplets.
    """
    found: dict[str, list[dict]] = {}
    wanted = {"final_layer": None, "triplet_margin": None} | wanted
    for record in _records(loss, profile):
        settings = record["settings"]
        if wanted.items() <= (dict.fromkeys(wanted) | settings).items():
            found.setdefault(settings_name(settings), []).append(record)
    if not found:
        raise _not_searched(loss, "SOURCE", profile)
    most = max(map(len, found.values()))
    complete = [tried for tried in found.values() if len(tried) == most]
    best = max(complete, key=lambda tried: np.mean([r["scores"]["mean_ap"] for r in tried]))
    return best[0]["settings"]


def calibration_of(loss: str, source: str, profile: str) -> list[float] | None:
    """Slope and offset of the best settings on a source; None if maps are compared."""
    if compares_maps(loss):
        return None
    best = best_settings(loss, profile)
    for record in _records(loss, profile):
        if (record["source"], record["settings"]) == (source, best):
            return record["calibration"]
    raise _not_searched(loss, source, profile)


def _records(loss: str, profile: str) -> list[dict]:
    """The searches on the images that the datasets have now."""
    return [
        record
        for record in records.read_records("search")
        if (record["loss"], record["profile"]) == (loss, profile)
        and runs.same_content(record.get("source_key"), record["source"], "train")
    ]


def _not_searched(loss: str, source: str, profile: str) -> FileNotFoundError:
    return FileNotFoundError(
        f"no search of {loss} on {source} at the {profile} profile in {records.results_folder()}; "
        f"run `python -m qaconv_lib tune {loss} {source} --profile {profile}`"
    )


def calibrate(similarity: np.ndarray, query: pd.DataFrame, gallery: pd.DataFrame) -> list[float]:
    """Slope and offset of the logit of "same person", from pairs of different cameras."""
    from sklearn.linear_model import LogisticRegression

    other = query["camera"].to_numpy()[:, None] != gallery["camera"].to_numpy()
    same = query["identity"].to_numpy()[:, None] == gallery["identity"].to_numpy()
    fit = LogisticRegression(C=1e6, max_iter=1000).fit(similarity[other][:, None], same[other])
    return [round(float(fit.coef_[0, 0]), 4), round(float(fit.intercept_[0]), 4)]
