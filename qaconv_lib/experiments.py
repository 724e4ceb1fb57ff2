"""Experiments that write records (chapters 7 to 10, `python -m qaconv_lib`)."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import time
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from qaconv_lib.archives import cache_folder, write_whole
from qaconv_lib.checkpoints import make_folder
from qaconv_lib.datasets import ReidDataset, load_dataset, validation_split
from qaconv_lib.evaluation import RankingScores, evaluate_ranking
from qaconv_lib.models import default_device, load_model, save_model
from qaconv_lib.profiles import get_profile
from qaconv_lib.records import provenance, read_records, results_folder, write_record
from qaconv_lib.reranking import k_reciprocal_rerank
from qaconv_lib.temporal import tlift
from qaconv_lib.training import Trainer


def run_name(loss: str, source: str, profile: str, seed: int) -> str:
    """Name of a run's files."""
    return f"{loss}-{source}-{profile}-seed{seed}"


def checkpoint_path(loss: str, source: str, profile: str = "laptop", seed: int = 0) -> Path:
    """Where a trained model lies: `data/checkpoints/<run>.safetensors`."""
    folder = results_folder().parent / "checkpoints"
    return folder / f"{run_name(loss, source, profile, seed)}.safetensors"


def train_model(
    loss: str,
    source: str,
    *,
    profile: str = "laptop",
    seed: int = 0,
    device: str | None = None,
    run_folder: str | Path | None = None,
    progress: bool = False,
) -> Path:
    """Train on a dataset's training images; write the checkpoint and the record of the run.

    Args:
        loss: "qaconv" or "softmax".
        source: name of the dataset to train on.
        profile: smoke, laptop or paper.
        seed: decides initial weights, shuffling and augmentation.
        device: e.g. "cpu" or "cuda"; the GPU if there is one.
        run_folder: where to keep the state after every epoch, to go on from after an interruption.
        progress: show progress bars.

    Returns:
        The checkpoint.
    """
    chosen = get_profile(profile)
    config = chosen.config(loss, source, seed)
    table = _first_identities(load_dataset(source).train, chosen.identities)
    path = checkpoint_path(loss, source, profile, seed)
    make_folder(path.parent)  # now, and not after the training
    trainer = Trainer(config, table, device=device, run_folder=run_folder)
    start = time.perf_counter()
    model = trainer.train(progress=progress)
    seconds = time.perf_counter() - start
    record = {
        "experiment": "train",
        "loss": loss,
        "source": source,
        "profile": profile,
        "seed": seed,
        "config": dataclasses.asdict(config),
        "images": len(table),
        "identities": model.num_classes,
        "history": trainer.history,
        "seconds": round(seconds, 1),
        **provenance(trainer.device),
    }
    save_model(path, model)
    write_record("train", run_name(loss, source, profile, seed), record)
    return path


def pair_similarities(
    loss: str, source: str, target: str, *, profile: str = "laptop", seed: int = 0
) -> dict[str, np.ndarray]:
    """Similarities of a trained model on a dataset's query and gallery images, all pairs.

    Those of QAConv are at temperature 10, as the released code hands them to re-ranking;
    `probabilities` takes them back to temperature 1. They are computed at the first call and kept
    in the cache folder under the contents of checkpoint and dataset.

    Returns:
        "query_gallery" (q, g), "query_query" (q, q) and "gallery_gallery" (g, g), float32.
    """
    path, dataset = checkpoint_path(loss, source, profile, seed), load_dataset(target)
    images = pd.concat([dataset.query, dataset.gallery])["path"]
    key = hashlib.sha256(path.read_bytes() if path.is_file() else b"")
    key.update("\n".join(map(str, images)).encode())  # the folder's name holds the archive's hash
    kept = cache_folder() / "similarities" / f"{key.hexdigest()[:16]}.npz"
    if kept.is_file():
        try:
            with np.load(kept) as stored:
                return dict(stored)
        except (ValueError, EOFError, zipfile.BadZipFile):
            pass  # damaged: compute it again
    model = load_model(path, default_device())
    queries, gallery = model.extract(dataset.query), model.extract(dataset.gallery)
    temperature = 10.0 if loss == "qaconv" else 1.0
    found = {
        name: model.similarity(a, b, temperature=temperature).numpy(force=True)
        for name, a, b in (
            ("query_gallery", queries, gallery),
            ("query_query", queries, queries),
            ("gallery_gallery", gallery, gallery),
        )
    }
    content = io.BytesIO()
    np.savez(content, **found)
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_whole(kept, content.getvalue())
    return found


def probabilities(
    similarity: np.ndarray, loss: str, calibration: tuple[float, float] | None = None
) -> np.ndarray:
    """What TLift wants: probabilities of "same person" from `pair_similarities`.

    Args:
        similarity: any shape.
        loss: for "qaconv" the logits are taken from temperature 10 to 1.
        calibration: for a pooled model, slope and offset that make a logit of its similarity.
    """
    if loss == "qaconv":
        clipped = np.clip(similarity.astype(np.float64), 1e-12, 1 - 1e-12)
        return expit(10 * logit(clipped)).astype(np.float32)
    slope, offset = calibration or (1.0, 0.0)
    return expit(slope * similarity + offset).astype(np.float32)


def similarity_stages(
    pairs: dict[str, np.ndarray],
    dataset: ReidDataset,
    loss: str,
    calibration: tuple[float, float] | None = None,
) -> dict[str, np.ndarray]:
    """Similarities of the query with the gallery after each stage of post-processing (Table 2).

    Re-ranking takes one minus the similarity; TLift takes probabilities, and after re-ranking one
    minus the distance.

    Args:
        pairs: what `pair_similarities` returns.
        dataset: the dataset they belong to.
        loss: what the model was trained with.
        calibration: see `probabilities`.

    Returns:
        By name of the stage; those with TLift only where the dataset has times.
    """
    reranked = 1 - k_reciprocal_rerank(
        1 - pairs["query_gallery"], 1 - pairs["query_query"], 1 - pairs["gallery_gallery"]
    )
    stages = {"alone": pairs["query_gallery"], "+RR": reranked}
    if dataset.has_time:
        query, gallery = dataset.query, dataset.gallery
        moments = query["camera"], query["seconds"], gallery["camera"], gallery["seconds"]
        stages["+TLift"] = tlift(probabilities(pairs["query_gallery"], loss, calibration), *moments)
        stages["+RR+TLift"] = tlift(reranked, *moments)
    return stages


def score(similarity: np.ndarray, query: pd.DataFrame, gallery: pd.DataFrame) -> RankingScores:
    """Evaluate similarities (q, g) of the images of two tables."""
    return evaluate_ranking(
        similarity, query["identity"], gallery["identity"], query["camera"], gallery["camera"]
    )


def evaluate_model(
    loss: str, source: str, target: str, *, profile: str = "laptop", seed: int = 0
) -> dict:
    """Test a trained model on another dataset, after every stage; write the record."""
    get_profile(profile).config(loss, source, seed)  # refuses what does not exist
    dataset = load_dataset(target)
    calibration = None
    if loss != "qaconv":
        calibration = best_search(loss, source, profile)["calibration"]
    start = time.perf_counter()
    pairs = pair_similarities(loss, source, target, profile=profile, seed=seed)
    stages = similarity_stages(pairs, dataset, loss, calibration)
    record = {
        "experiment": "cross_domain",
        "loss": loss,
        "source": source,
        "target": target,
        "profile": profile,
        "seed": seed,
        "calibration": calibration,
        "queries": len(dataset.query),
        "gallery": len(dataset.gallery),
        "stages": {
            name: _summary(score(value, dataset.query, dataset.gallery))
            for name, value in stages.items()
        },
        "seconds": round(time.perf_counter() - start, 1),
        **provenance(default_device()),
    }
    write_record("cross_domain", f"{run_name(loss, source, profile, seed)}-on-{target}", record)
    return record


def search(
    loss: str,
    source: str,
    *,
    profile: str = "laptop",
    identities: float = 0.25,
    progress: bool = False,
) -> list[dict]:
    """Try settings on a validation split of the source, never on a target; write the records.

    The split holds out training identities; a model trained on the others ranks them, one query an
    identity and camera. Candidates that have a record already are not run again. A pooled model's
    calibration for TLift (a logistic regression of "same person" on the similarity) is fitted
    on the same pairs.

    Args:
        loss: "qaconv" or "softmax".
        source: name of the dataset to train on.
        profile: its `tried` lists the candidates.
        identities: share of the training identities that is held out.
        progress: show progress bars.

    Returns:
        The records, in the order of the candidates.
    """
    chosen = get_profile(profile)
    chosen.config(loss, source)  # refuses an unknown loss
    table = _first_identities(load_dataset(source).train, chosen.identities)
    train, query, gallery = validation_split(table, identities, seed=0)
    done = {
        _settings_name(record["settings"]): record for record in _searches(loss, source, profile)
    }
    records = []
    for settings in chosen.tried[loss]:
        name = _settings_name(settings)
        if name not in done:
            config = chosen.config(loss, source, **settings)
            trainer = Trainer(config, train)
            start = time.perf_counter()
            model = trainer.train(progress=progress).eval()
            seconds = time.perf_counter() - start
            similarity = model.similarity(model.extract(query), model.extract(gallery))
            similarity = similarity.numpy(force=True)
            done[name] = {
                "experiment": "search",
                "loss": loss,
                "source": source,
                "profile": profile,
                "seed": 0,
                "settings": settings,
                "held_out_identities": int(query["identity"].nunique()),
                "scores": _summary(score(similarity, query, gallery)),
                "calibration": _calibrate(similarity, query, gallery),
                "history": trainer.history,
                "seconds": round(seconds, 1),
                **provenance(trainer.device),
            }
            write_record("search", f"{loss}-{source}-{profile}-{name}", done[name])
        records.append(done[name])
    return records


def best_search(loss: str, source: str, profile: str) -> dict:
    """The record of the settings that did best on the validation split.

    Raises:
        FileNotFoundError: no search has been run.
    """
    records = _searches(loss, source, profile)
    if not records:
        raise FileNotFoundError(
            f"no search of {loss} on {source} at the {profile} profile in {results_folder()}; run "
            f"`python -m qaconv_lib search {loss} {source} --profile {profile}`"
        )
    return max(records, key=lambda record: record["scores"]["mean_ap"])


def _summary(scores: RankingScores) -> dict:
    return {
        "rank1": round(float(scores.rank(1)), 5),
        "rank5": round(float(scores.rank(5)), 5),
        "rank10": round(float(scores.rank(10)), 5),
        "mean_ap": round(float(scores.mean_ap), 5),
        "mean_ap_trapezoid": round(float(scores.mean_ap_trapezoid), 5),
        "mean_inp": round(float(scores.mean_inp), 5),
    }


def _calibrate(similarity: np.ndarray, query: pd.DataFrame, gallery: pd.DataFrame) -> list[float]:
    """Slope and offset of the logit of "same person", from pairs of different cameras."""
    other = query["camera"].to_numpy()[:, None] != gallery["camera"].to_numpy()
    same = query["identity"].to_numpy()[:, None] == gallery["identity"].to_numpy()
    fit = LogisticRegression(C=1e6, max_iter=1000).fit(similarity[other][:, None], same[other])
    return [round(float(fit.coef_[0, 0]), 4), round(float(fit.intercept_[0]), 4)]


def _searches(loss: str, source: str, profile: str) -> list[dict]:
    key = (loss, source, profile)
    return [r for r in read_records("search") if (r["loss"], r["source"], r["profile"]) == key]


def _settings_name(settings: dict) -> str:
    return "-".join(f"{key}={value}" for key, value in sorted(settings.items())) or "default"


def _first_identities(table: pd.DataFrame, count: int | None) -> pd.DataFrame:
    if count is None:
        return table
    kept = sorted(table["identity"].unique())[:count]
    return table[table["identity"].isin(kept)].reset_index(drop=True)
