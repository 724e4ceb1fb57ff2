"""Training runs and what they are tested on: the unit of every experiment (chapters 7 to 10)."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import re
import time
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import qaconv_lib
from qaconv_lib._files import cache_folder, make_folder, read_checkpoint, write_whole
from qaconv_lib._processes import add_up, barrier, process_count, process_rank
from qaconv_lib.config import differing_settings
from qaconv_lib.datasets import (
    ReidDataset,
    all_images,
    counting_unreadable,
    load_dataset,
    load_image,
    load_test,
    readable_rows,
    unreadable_images,
)
from qaconv_lib.evaluation import RankingScores, evaluate_ranking
from qaconv_lib.experiments.profiles import RunConfig, get_profile
from qaconv_lib.experiments.records import provenance, results_folder, write_record
from qaconv_lib.losses import compares_maps
from qaconv_lib.models import default_device, load_model, save_model
from qaconv_lib.reranking import k_reciprocal_rerank
from qaconv_lib.scale.retrieval import extract_in_shares, similarity_in_shares
from qaconv_lib.temporal import tlift

#: Post-processing in the order of the paper's Table 2.
STAGES = ("alone", "+TLift", "+RR", "+RR+TLift")


@dataclass(frozen=True)
class Run:
    """One training run, described completely."""

    loss: str  #: one of `LOSSES`
    source: str  #: dataset to train on; "-all" after its name means all its images
    profile: str = "laptop"
    seed: int = 0  #: decides initial weights, shuffling and augmentation
    #: What differs from the profile's settings, and `identities`: how many to train on.
    settings: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        base = vars(get_profile(self.profile).config(self.loss, self.seed))
        settings = {  # as JSON holds them
            key: os.fspath(value) if isinstance(value, os.PathLike) else value
            for key, value in self.settings.items()
        }
        changed = {key: value for key, value in settings.items() if base.get(key) != value}
        object.__setattr__(self, "settings", changed)
        self.config()  # refuses what does not exist

    @property
    def name(self) -> str:
        """Name of the run's files."""
        own = [settings_name(self.settings)] if self.settings else []
        return "-".join([self.loss, self.source, self.profile, *own, f"seed{self.seed}"])

    @property
    def about(self) -> dict:
        """What records say of the run."""
        return dataclasses.asdict(self)

    def config(self) -> RunConfig:
        """The training settings."""
        own = {key: value for key, value in self.settings.items() if key != "identities"}
        return get_profile(self.profile).config(self.loss, self.seed, **own)

    def teacher(self) -> Run | None:
        """The run whose model teaches this one's: QAConv with the backbone that `teacher` names.

        Source, profile, seed, identities and image size are this run's.
        """
        backbone = self.config().teacher
        if backbone is None:
            return None
        shared = {k: v for k, v in self.settings.items() if k in ("identities", "height", "width")}
        return Run("qaconv", self.source, self.profile, self.seed, shared | {"backbone": backbone})

    def table(self) -> pd.DataFrame:
        """The training images."""
        count = self.settings.get("identities", get_profile(self.profile).identities)
        table = training_images(self.source)
        if count is None:
            return table
        kept = np.sort(table["identity"].unique())[:count]
        return table[table["identity"].isin(kept)].reset_index(drop=True)

    def checkpoint(self) -> Path:
        """The trained model: the one in the data folder, or else in the cache folder's `runs`."""
        shipped = checkpoint_path(self.loss, self.source, self.profile, self.seed)
        if not self.settings and self.trained(shipped):
            return shipped
        return self.folder() / "model.safetensors"

    def trained(self, path: Path) -> bool:
        """Whether a file is a model that was trained with the settings the run has now."""
        try:
            _, details = read_checkpoint(path)
        except (FileNotFoundError, ValueError):
            return False
        return not differing_settings(details.get("config"), self.config())

    def made(self, record: dict) -> bool:
        """Whether a record is of this run, with the settings it has now."""
        same = all(record.get(key) == value for key, value in vars(self).items())
        return same and not differing_settings(record.get("config"), self.config())

    def folder(self) -> Path:
        """Where the run keeps its state while it trains, and its model; other settings, another."""
        return cache_folder() / "runs" / f"{self.name}-{self.config().digest()}"


def settings_name(settings: dict) -> str:
    """Settings as part of a file name; a path among them loses its separators."""
    name = "-".join(f"{key}={value}" for key, value in sorted(settings.items()))
    return re.sub(r"[\\/:]+", "_", name)


def training_images(source: str) -> pd.DataFrame:
    """Training images of a dataset; with "-all" after its name, all its images."""
    if source.endswith("-all"):
        return all_images(load_dataset(source.removesuffix("-all")))
    return load_dataset(source).train


def check_readable(pairs: Iterable[tuple[str, str]]) -> None:
    """Open every image of pairs of a source and a target, before a training would meet a bad one.

    UnreadableImageError says which images cannot be read, and how many.
    """
    tables = {}
    for source, target in dict.fromkeys(pairs):
        dataset = load_test(target)
        tables[f"{source}, training"] = training_images(source)
        tables[f"{target}, query and gallery"] = pd.concat([dataset.query, dataset.gallery])
    for what, table in tables.items():
        with counting_unreadable(table, what):
            for path in unreadable_images(table["path"])[:1]:
                load_image(path)  # raises, and the error that leaves here counts them all


def checkpoint_path(loss: str, source: str, profile: str = "laptop", seed: int = 0) -> Path:
    """Where a model that comes with the book lies: `data/checkpoints/<run>.safetensors`."""
    name = f"{loss}-{source}-{profile}-seed{seed}"
    return results_folder().parent / "checkpoints" / f"{name}.safetensors"


def train_run(
    run: Run,
    *,
    checkpoint: str | Path | None = None,
    device: str | None = None,
    run_folder: str | Path | None = None,
    progress: bool = False,
    skip_unreadable: bool = False,
) -> Path:
    """Train; write the model and the record of the run, and return the checkpoint.

    A teacher that the run needs must have been trained.

    Args:
        run: what to train.
        checkpoint: where to write the model; None means the run's folder in the cache.
        device: e.g. "cpu" or "cuda"; the GPU if there is one.
        run_folder: keeps a log, and the state from which an interrupted training is resumed.
        progress: show progress bars.
        skip_unreadable: open every image first, and leave out those that cannot be read.
    """
    path = Path(checkpoint) if checkpoint is not None else run.folder() / "model.safetensors"
    whole = table = run.table()
    if skip_unreadable:
        table = readable_rows(whole, f"{run.source}, training", progress)
    lost = {"unreadable_images": len(whole) - len(table)} if skip_unreadable else {}
    make_folder(path.parent)  # now, and not after the training
    taught_by = run.teacher()
    teacher = None if taught_by is None else load_model(taught_by.checkpoint())
    trainer = run.config().trainer(table, teacher=teacher, device=device, run_folder=run_folder)
    start, done_before = time.perf_counter(), trainer.epoch
    with counting_unreadable(table, f"{run.source}, training"):
        model = trainer.train(progress=progress)
    found = {
        "images": len(table),
        **lost,
        "num_identities": model.num_classes,
        "history": trainer.history,
        "seconds": round(time.perf_counter() - start, 1),
        "epochs_timed": trainer.epoch - done_before,
    }
    if process_rank() == 0:
        save_model(path, model)
    record_run("train", run, None, found, trainer.device)
    barrier()  # now every process may read them
    return path


def record_run(
    experiment: str, run: Run, target: str | None, found: dict, device: str | torch.device | None
) -> dict:
    """Write the record of what was found with a run, perhaps on a target, and return it."""
    record = {"experiment": experiment, **run.about, "config": dataclasses.asdict(run.config())}
    record |= {"target": target} if target else {}
    record |= found | provenance(device or default_device())
    write_record(experiment, f"{run.name}-on-{target}" if target else run.name, record)
    return record


def pair_similarities(
    run: Run, target: str | ReidDataset, *, device: str | None = None
) -> dict[str, np.ndarray]:
    """Similarities of a trained model on a dataset's query and gallery images, all pairs.

    Models that compare maps give logits; `probabilities` and `rerank` take their sigmoid. Those of
    a profile's own models are kept in the cache folder, under the contents of checkpoint, dataset
    and library, and taken from there at the next call.

    Returns:
        "query_gallery" (q, g), "query_query" (q, q) and "gallery_gallery" (g, g), float32.
    """
    path = run.checkpoint()
    dataset = load_test(target) if isinstance(target, str) else target
    tested = pd.concat([dataset.query, dataset.gallery])
    code = sorted(Path(qaconv_lib.__file__).parent.glob("*.py"))
    kept = cache_folder() / "similarities" / f"{_content_key([path, *tested['path'], *code])}.npz"
    if add_up(kept.is_file())[0] == process_count():  # all processes must take the same way
        try:
            with np.load(kept) as stored:
                return dict(stored)
        except (ValueError, EOFError, zipfile.BadZipFile):
            pass  # damaged: compute it again
    model = load_model(path, device or default_device())
    with counting_unreadable(tested, f"{dataset.name}, query and gallery"):
        maps = {
            part: extract_in_shares(model, getattr(dataset, part)) for part in ("query", "gallery")
        }
    found = {
        f"{a}_{b}": similarity_in_shares(model, maps[a], maps[b]).numpy(force=True)
        for a, b in (("query", "gallery"), ("query", "query"), ("gallery", "gallery"))
    }
    if not run.settings and process_rank() == 0:
        content = io.BytesIO()
        np.savez(content, **found)  # type: ignore[arg-type]  # none is called allow_pickle
        make_folder(kept.parent)
        write_whole(kept, content.getvalue())
    return found


def _content_key(paths: Iterable[str | Path]) -> str:
    """A digest of the contents of files, in their order; a missing one counts as empty."""
    key = hashlib.sha256()
    for path in map(Path, paths):
        key.update(hashlib.sha256(path.read_bytes() if path.is_file() else b"").digest())
    return key.hexdigest()[:16]


def probabilities(
    similarity: np.ndarray, loss: str, calibration: list[float] | None = None
) -> np.ndarray:
    """What TLift takes: probabilities of "same person" from `pair_similarities`.

    For a pooled model, `calibration` is the slope and the offset that make its similarity a logit.
    """
    if compares_maps(loss):
        return torch.from_numpy(similarity).double().sigmoid().numpy()
    slope, offset = calibration or (1.0, 0.0)
    return torch.from_numpy(slope * similarity + offset).float().sigmoid().numpy()


def distances(similarity: np.ndarray, loss: str) -> np.ndarray:
    """What re-ranking takes: one minus the similarity, of logits `1 - sigmoid(logits / 10)`.

    That is the temperature of the released code.
    """
    if not compares_maps(loss):
        return 1 - similarity
    return 1 - torch.sigmoid(torch.from_numpy(similarity) / 10).numpy()


def rerank(pairs: dict[str, np.ndarray], loss: str) -> np.ndarray:
    """Similarity (q, g) of `pair_similarities` after re-ranking: one minus the distance."""
    far = {kind: distances(similarity, loss) for kind, similarity in pairs.items()}
    return 1 - k_reciprocal_rerank(far["query_gallery"], far["query_query"], far["gallery_gallery"])


def times(dataset: ReidDataset) -> tuple[pd.Series, pd.Series, pd.Series, pd.Series]:
    """Cameras and seconds of query and gallery, as `tlift` and `tfusion` take them."""
    query, gallery = dataset.query, dataset.gallery
    return query["camera"], query["seconds"], gallery["camera"], gallery["seconds"]


def similarity_stages(
    pairs: dict[str, np.ndarray],
    dataset: ReidDataset,
    loss: str,
    calibration: list[float] | None = None,
) -> dict[str, np.ndarray]:
    """Similarities (q, g) of `pair_similarities` after each stage of post-processing (Table 2).

    Re-ranking takes `distances`; TLift takes `probabilities`, and after re-ranking one minus the
    distance. Stages with TLift are there only if the dataset has times.
    """
    stages = {"alone": pairs["query_gallery"], "+RR": rerank(pairs, loss)}
    if dataset.has_time:
        calibrated = probabilities(pairs["query_gallery"], loss, calibration)
        stages["+TLift"] = tlift(calibrated, *times(dataset))
        stages["+RR+TLift"] = tlift(stages["+RR"], *times(dataset))
    return stages


def score(similarity: np.ndarray, query: pd.DataFrame, gallery: pd.DataFrame) -> RankingScores:
    """Evaluate similarities (q, g) of the images of two tables."""
    return evaluate_ranking(
        similarity, query["identity"], gallery["identity"], query["camera"], gallery["camera"]
    )


def summary(scores: RankingScores, per_query: bool = True) -> dict:
    """What records keep of the scores: shares from 0 to 1, and three lists, one entry per query.

    The lists hold the identity, the average precision (step sum) and the rank of the first match
    of every query that has a match.
    """
    found: dict[str, Any] = {f"rank{k}": scores.rank(k) for k in (1, 5, 10)}
    found |= {key: getattr(scores, key) for key in ("mean_ap", "mean_ap_trapezoid", "mean_inp")}
    found = {key: round(float(value), 5) for key, value in found.items()}
    if per_query:
        valid = scores.per_query[scores.per_query["valid"]]
        found["identity"] = valid["identity"].tolist()
        found["average_precision"] = [round(v, 4) for v in valid["average_precision"].tolist()]
        found["first_match_rank"] = valid["first_match_rank"].astype(int).tolist()
    return found
