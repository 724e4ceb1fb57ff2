"""Training runs and what they are tested on: the unit of every experiment (chapters 7 to 10)."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import re
import time
import warnings
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import qaconv_lib
from qaconv_lib._files import (
    cache_folder,
    check_writable,
    data_folders,
    make_folder,
    read_checkpoint,
    write_whole,
)
from qaconv_lib._processes import add_up, barrier, process_count, process_rank
from qaconv_lib.config import differing_settings, plain
from qaconv_lib.datasets import ReidDataset, all_images, content_key, load_dataset, load_image
from qaconv_lib.evaluation import RankingScores, evaluate_ranking
from qaconv_lib.experiments.profiles import RunConfig, get_profile
from qaconv_lib.experiments.records import provenance, results_folder, write_record
from qaconv_lib.experiments.unreadable import (
    counting_unreadable,
    load_test,
    readable_rows,
    unreadable_images,
)
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
        settings = {key: plain(key, value) for key, value in self.settings.items()}
        object.__setattr__(self, "seed", plain("seed", self.seed))
        changed = {key: value for key, value in settings.items() if base.get(key) != value}
        object.__setattr__(self, "settings", changed)
        self.config()  # refuses what does not exist

    @property
    def name(self) -> str:
        """Name of the run's files."""
        own = [settings_name(self.settings)] if self.settings else []
        source = file_label(self.source, "train")
        return "-".join([self.loss, source, self.profile, *own, f"seed{self.seed}"])

    @property
    def about(self) -> dict:
        """What records say of the run."""
        key = self.source_key
        return dataclasses.asdict(self) | ({"source_key": key} if key else {})

    @property
    def source_key(self) -> str | None:
        """What the run's training images and the weights it starts from contain."""
        key, weights = dataset_key(self.source, "train"), self.settings.get("weights")
        return key if weights is None else f"{key or self.source}-{_content_key([weights])}"

    def same_source(self, stored: dict) -> bool:
        """Whether something stored was made from the content that the run has now."""
        try:
            return stored.get("source_key") == self.source_key
        except (FileNotFoundError, ValueError):  # what is missing speaks against nothing
            return True

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

    @property
    def transposed(self) -> bool:
        """Whether re-ranking takes the order of release v1.0: where the paper is reproduced."""
        return self.profile.partition("+")[0] == "paper"

    def checkpoint(self) -> Path:
        """The trained model: the one in the data folder, or else in the cache folder's `runs`."""
        shipped = self.shipped()
        if not self.settings and self.trained(shipped):
            return shipped
        return self.folder() / "model.safetensors"

    def shipped(self) -> Path:
        """Where the model of the profile's settings lies in the data folder."""
        source = file_label(self.source, "train")
        return checkpoint_path(self.loss, source, self.profile, self.seed)

    def trained(self, path: Path) -> bool:
        """Whether a file is a model of the settings and training images the run has now."""
        details = _details(path)
        other = differing_settings(details.get("config"), self.config())
        return not other and self.same_source(details)

    def made(self, record: dict) -> bool:
        """Whether a record is of this run, with the settings and images it has now."""
        same = all(record.get(key) == value for key, value in vars(self).items())
        same = same and not differing_settings(record.get("config"), self.config())
        return same and self.same_source(record)

    def folder(self) -> Path:
        """Where the run keeps its state while it trains, and its model.

        Other settings or other training images have another folder.
        """
        try:
            key = self.source_key
        except FileNotFoundError:  # without the dataset there is no such folder yet
            key = None
        parts = [self.name, self.config().digest(), *([key[-8:]] if key else [])]
        return cache_folder() / "runs" / "-".join(parts)


#: `dataset_key` of the miniatures' training and test images as they ship. What was made from them
#: carries no key, so it is not valid for others of the same name.
SHIPPED: dict[str, tuple[str, ...]] = {
    "mini-market": ("3dd4d2860a5e6f8e", "76c4ea027ac57fd1"),
    "mini-duke": ("bf2850e2bdff4c19", "db23c3248d1e2ae6"),
    "mini-cuhk03": ("c12d6478b7112132", "24860f03e9f1322c"),
    "mini-cuhk03-detected": ("c12d6478b7112132", "24860f03e9f1322c"),
    "mini-cuhk03-labeled": ("d91fb47041fbee3e", "83ab33d5383c1089"),
    "mini-msmt17": ("f36f92134c02e84a", "d7da99d0701c6230"),
    "mini-msmt17-all": ("5175c4504d406b92",),
}
_LABELS = {"train": ["identity"], "test": ["identity", "camera", "session", "seconds"]}


def dataset_key(name: str, part: str) -> str | None:
    """The `content_key` of a dataset's "train" or "test" images; None for a miniature as it ships.

    It is computed once, until `train_run` or another function that makes records starts.
    """
    key = _key_now(name, part, *data_folders())
    return None if key in SHIPPED.get(name, ()) else key


@functools.lru_cache
def _key_now(name: str, part: str, *folders: Path) -> str:
    if part == "train":
        return content_key(training_images(name), _LABELS[part])
    dataset = load_test(name)
    return content_key(pd.concat([dataset.query, dataset.gallery]), _LABELS[part])


def look_again() -> None:
    """Forget the keys: images may have changed since they were computed."""
    _key_now.cache_clear()


def same_content(stored: dict, name: str, part: str) -> bool:
    """Whether something stored was made from the images that the dataset `name` has now.

    Where the dataset is missing, nothing speaks against it.
    """
    key = {"train": "source_key", "test": "target_key"}[part]
    try:
        return stored.get(key) == dataset_key(name, part)
    except (FileNotFoundError, ValueError):
        return True


def file_label(name: str, part: str) -> str:
    """A dataset in file names: for a CSV file, of which there are many, with its content's key."""
    if not name.lower().removesuffix("-all").endswith(".csv"):
        return name
    return f"{_short(name, 40)}-{str(dataset_key(name, part))[:8]}"


def _details(path: Path) -> dict:
    """What a checkpoint says beside its weights; nothing if it is missing or damaged."""
    try:
        return read_checkpoint(path)[1]
    except (FileNotFoundError, ValueError):
        return {}


def settings_name(settings: dict) -> str:
    """Settings as part of a file name; a path among them loses its separators."""
    name = "-".join(f"{key}={value}" for key, value in sorted(settings.items()))
    name = re.sub(r'[\\/:*?"<>|]+', "_", name)
    return _short(name, 110)


def _short(name: str, most: int) -> str:
    """At most so many bytes of a name, and a digest of it; file names have at most 255 bytes."""
    if len(name.encode()) <= most:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name.encode()[: most - 9].decode(errors='ignore')}-{digest}"


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
    look_again()
    path = Path(checkpoint) if checkpoint is not None else run.folder() / "model.safetensors"
    if (there := _details(path)) and not run.same_source(there):
        raise ValueError(
            f"{path} holds a model trained on other images than {run.source} has now; move it first"
        )
    whole = table = run.table()
    if skip_unreadable:
        table = readable_rows(whole, f"{run.source}, training", progress)
    lost = {"unreadable_images": len(whole) - len(table)} if skip_unreadable else {}
    for folder in (path.parent, results_folder() / "train"):  # now, and not after the training
        check_writable(folder)
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
        key = run.source_key
        save_model(path, model, **({"source_key": key} if key else {}))
    record_run("train", run, None, found, trainer.device)
    barrier()  # now every process may read them
    return path


def record_run(
    experiment: str, run: Run, target: str | None, found: dict, device: str | torch.device | None
) -> dict:
    """Write the record of what was found with a run, perhaps on a target, and return it."""
    record = {"experiment": experiment, **run.about, "config": dataclasses.asdict(run.config())}
    name = run.name
    if target:
        key, name = dataset_key(target, "test"), f"{name}-on-{file_label(target, 'test')}"
        record |= {"target": target} | ({"target_key": key} if key else {})
    record |= found | provenance(device or default_device())
    write_record(experiment, name, record)
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
    if not path.is_file():
        raise FileNotFoundError(
            f"no checkpoint at {path}; train the model first with `python -m qaconv_lib train "
            f"{run.loss} {run.source} --profile {run.profile}` and the same further settings (a "
            "model of other settings or other training images does not count)"
        )
    dataset = load_test(target) if isinstance(target, str) else target
    tested = pd.concat([dataset.query, dataset.gallery])
    code = sorted(Path(qaconv_lib.__file__).parent.glob("*.py"))
    key = _content_key([path, *dataset.query["path"], "", *dataset.gallery["path"], *code])
    kept = cache_folder() / "similarities" / f"{key}.npz"
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
        try:
            make_folder(kept.parent)
            write_whole(kept, content.getvalue())
        except OSError as error:  # they are here all the same
            warnings.warn(f"the similarities are not kept for another time: {error}", stacklevel=2)
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
    from scipy.special import expit

    if compares_maps(loss):
        return expit(similarity.astype(np.float64))
    slope, offset = calibration or (1.0, 0.0)
    return expit(slope * similarity + offset).astype(np.float32)


def distances(similarity: np.ndarray, loss: str) -> np.ndarray:
    """What re-ranking takes: one minus the similarity, of logits `1 - sigmoid(logits / 10)`.

    That is the temperature of the released code.
    """
    if not compares_maps(loss):
        return 1 - similarity
    return 1 - torch.sigmoid(torch.from_numpy(similarity) / 10).numpy()


def rerank(pairs: dict[str, np.ndarray], loss: str, *, transposed: bool = False) -> np.ndarray:
    """Similarity (q, g) of `pair_similarities` after re-ranking: one minus the distance.

    An untied head gives s(a, b) != s(b, a). Here entry [i, j] of the blocks among queries and among
    gallery images takes i for the query. Releases v1.0 and v1.1, which made the paper's tables,
    take j (`transposed`): see "Paper and code".
    """
    far = {kind: distances(similarity, loss) for kind, similarity in pairs.items()}
    between = far["query_query"], far["gallery_gallery"]
    if transposed:
        between = between[0].T, between[1].T
    return 1 - k_reciprocal_rerank(far["query_gallery"], *between)


def times(dataset: ReidDataset) -> tuple[pd.Series, pd.Series, pd.Series, pd.Series]:
    """Cameras and seconds of query and gallery, as `tlift` and `tfusion` take them."""
    query, gallery = dataset.query, dataset.gallery
    return query["camera"], query["seconds"], gallery["camera"], gallery["seconds"]


def similarity_stages(
    pairs: dict[str, np.ndarray],
    dataset: ReidDataset,
    loss: str,
    calibration: list[float] | None = None,
    *,
    transposed: bool = False,
) -> dict[str, np.ndarray]:
    """Similarities (q, g) of `pair_similarities` after each stage of post-processing (Table 2).

    Re-ranking takes `distances`; TLift takes `probabilities`, and after re-ranking one minus the
    distance. Stages with TLift are there only if the dataset has times.
    """
    reranked = rerank(pairs, loss, transposed=transposed)
    stages = {"alone": pairs["query_gallery"], "+RR": reranked}
    if dataset.has_time:
        calibrated = probabilities(pairs["query_gallery"], loss, calibration)
        stages["+TLift"] = tlift(calibrated, *times(dataset))
        stages["+RR+TLift"] = tlift(stages["+RR"], *times(dataset))
    elif dataset.untimed:
        warnings.warn(f"{dataset.untimed}, so TLift is left out", stacklevel=2)
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
        found["first_match_rank"] = [
            round(v, 4) if v % 1 else int(v) for v in valid["first_match_rank"].tolist()
        ]
    return found
