"""Training runs and their tests: the unit of every experiment (chapters 7 to 10)."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import json
import os
import re
import time
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

import qaconv_lib
from qaconv_lib import _files, datasets
from qaconv_lib._processes import add_up, barrier, process_count, process_rank
from qaconv_lib.config import differing_settings, plain
from qaconv_lib.datasets import ReidDataset, UnreadableImageError, load_dataset, load_image
from qaconv_lib.evaluation import RankingScores, evaluate_ranking
from qaconv_lib.experiments import records
from qaconv_lib.experiments.profiles import RunConfig, get_profile
from qaconv_lib.layouts.places import find_folder
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
        """The `content_key` of the training images and of the weights that it starts from."""
        return content_key(self.source, "train", self.settings.get("weights"))

    def same_source(self, stored: dict) -> bool:
        """Whether something stored was made from the content that the run has now."""
        weights = self.settings.get("weights")
        return same_content(stored.get("source_key"), self.source, "train", weights)

    def config(self) -> RunConfig:
        """The training settings."""
        own = {key: value for key, value in self.settings.items() if key != "identities"}
        return get_profile(self.profile).config(self.loss, self.seed, **own)

    def teacher(self) -> Run | None:
        """The run whose model teaches this one's: as this one, but with the teacher's backbone."""
        backbone = self.config().teacher
        if backbone is None:
            return None
        shared = {k: v for k, v in self.settings.items() if k in ("identities", "height", "width")}
        return Run("qaconv", self.source, self.profile, self.seed, shared | {"backbone": backbone})

    def table(self) -> pd.DataFrame:
        """The training images."""
        table = load_dataset(self.source).train
        count = self.settings.get("identities", get_profile(self.profile).identities)
        kept = np.sort(table["identity"].unique())[:count]
        return table[table["identity"].isin(kept)].reset_index(drop=True)

    @property
    def transposed(self) -> bool:
        """Whether `rerank` takes the order of release v1.0: where the paper is reproduced."""
        return self.profile.partition("+")[0] == "paper"

    def checkpoint(self) -> Path:
        """The trained model: the one in the data folder, or else in the run's own folder."""
        if self.trained(self.shipped()):
            return self.shipped()
        return self.folder() / "model.safetensors"

    def shipped(self) -> Path:
        """Where the model is if it comes with the book."""
        name = next((name for name, run in NAMED.items() if run == self), self.name)
        return records.results_folder().parent / "checkpoints" / f"{name}.safetensors"

    def trained(self, path: Path) -> bool:
        """Whether a file is a model of the settings and training images the run has now."""
        return self._fits(_details(path))

    def made(self, record: dict) -> bool:
        """Whether a record is of this run, with the settings and images it has now."""
        return all(record.get(k) == v for k, v in vars(self).items()) and self._fits(record)

    def _fits(self, stored: dict) -> bool:
        other = differing_settings(stored.get("config"), self.config())
        return not other and self.same_source(stored)

    def folder(self) -> Path:
        """Where the run keeps its state and its model: of these very settings and images."""
        try:
            key = self.source_key
        except FileNotFoundError:  # a run whose dataset is missing has no folder of its own yet
            key = None
        parts = [self.name, self.config().digest(), *([key[-8:]] if key else [])]
        return _files.cache_folder() / "runs" / "-".join(parts)


_ALL = "+".join(["mini-world", *get_profile("general").datasets.values()])
#: Models whose files have names of their own.
NAMED = {
    "general": Run("pairwise", _ALL, "general", 0, get_profile("general").backbones["large"]),
    "general-small": Run("pairwise", _ALL, "general"),
}
#: Folders of the miniatures as they ship, named after their content. What was made from them has no
#: key, and counts for them alone.
SHIPPED = ("mini-market-34e4100cd29a88ab", "mini-duke-317f6b62ae857619",
           "mini-cuhk03-865fb94c44f6975e", "mini-msmt17-225cff46b044dd77")  # fmt: skip
#: Worlds of the experiments, as their manifests describe them.
WORLDS = {
    name: {"identities": identities, "cameras": cameras, "seed": 0, "version": 1}
    for name, identities, cameras in [
        ("mini-world", 1500, 40),
        ("mini-world-10", 400, 10),
        ("mini-world-5", 400, 5),
    ]
}


def content_key(name: str, part: str, weights: str | None = None) -> str | None:
    """Key of the content of a dataset's "train" or "test" images; None for a shipped miniature.

    A file of weights adds its own. Keys are computed once, until `look_again`.
    """
    key = _content_key(name, part, *_files.data_folders())
    return key if weights is None else f"{key or name}-{_digest([weights])}"


@functools.lru_cache
def _content_key(name: str, part: str, *folders: Path) -> str | None:
    if "+" in name:
        names = name.split("+")
        keys = [_content_key(each, part, *folders) for each in names]
        given = "+".join(key or each for key, each in zip(keys, names, strict=True))
        return _digest_of(given) if any(keys) else None
    if name.startswith("mini-world"):  # a processor may change a last bit of its images
        manifest = json.loads((load_dataset(name).root / "manifest.json").read_bytes())
        world = manifest["world"]
        return None if world == WORLDS.get(name) else _digest_of(json.dumps(world, sort_keys=True))
    archive, layout = datasets.MINIATURES.get(name.removesuffix("-all"), (None, ""))
    place = archive and find_folder(datasets.LAYOUTS[layout], archive, list(folders), given=False)
    if place and place.name in SHIPPED:
        return None
    if part == "train":
        return datasets.content_key(load_dataset(name).train)
    columns = ["identity", "camera", "session", "seconds"]
    return datasets.content_key(tested(load_test(name)), columns)


def _digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def look_again() -> None:
    """Forget the keys, since images may have changed; called before records are made."""
    _content_key.cache_clear()


def same_content(key: str | None, name: str, part: str, weights: str | None = None) -> bool:
    """Whether what is stored with a key was made from what `content_key` finds now."""
    try:
        return key == content_key(name, part, weights)
    except (FileNotFoundError, ValueError):  # missing data cannot contradict what is stored
        return True


def file_label(name: str, part: str) -> str:
    """A dataset in file names; CSV files may share a name, so theirs has the key of the content."""
    if not name.lower().removesuffix("-all").endswith(".csv"):
        return name
    return f"{_short(name, 40)}-{str(content_key(name, part))[:8]}"


def _details(path: Path) -> dict:
    """What a checkpoint says beside its weights; nothing if it is missing or damaged."""
    try:
        return _files.read_checkpoint(path)[1]
    except (FileNotFoundError, ValueError):
        return {}


def settings_name(settings: dict) -> str:
    """Settings as part of a file name; a path among them loses its separators."""
    name = "-".join(f"{key}={value}" for key, value in sorted(settings.items()))
    return _short(re.sub(r'[\\/:*?"<>|]+', "_", name), 110)


def _short(name: str, most: int) -> str:
    """At most so many bytes of a name, and a digest of it; file names have at most 255 bytes."""
    if len(name.encode()) <= most:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name.encode()[: most - 9].decode(errors='ignore')}-{digest}"


# Images that cannot be read ----------------------------------------------------------------------


def load_test(name: str, skip_unreadable: bool = False) -> ReidDataset:
    """Load a dataset to test on, if asked without the images that cannot be read."""
    dataset = load_dataset(name)
    if not dataset.has_test:
        raise ValueError(f"{name} has no query and gallery images, so test on another dataset")
    if not skip_unreadable:
        return dataset
    tables = {s: readable_rows(dataset.splits[s], f"{name}, {s}") for s in ("query", "gallery")}
    return dataclasses.replace(dataset, **tables)


def unreadable_images(paths: Iterable[str], progress: bool = False) -> list[str]:
    """Those of the images that cannot be read, or are not there; every image is opened."""

    def is_bad(path: str) -> bool:
        with suppress(UnreadableImageError, FileNotFoundError):
            load_image(path)
            return False
        return True

    paths = list(map(str, paths))
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # decoding releases Python's lock
        bar = tqdm(paths, "opening", unit="image", disable=not progress)
        return [path for path, bad in zip(bar, pool.map(is_bad, paths), strict=True) if bad]


def name_some(paths: list[str]) -> str:
    """The first few of the paths, for a message."""
    return ", ".join(paths[:3]) + " ..." * (len(paths) > 3)


def readable_rows(table: pd.DataFrame, what: str, progress: bool = False) -> pd.DataFrame:
    """The rows of a table (`what`) whose images can be read; a warning names the others."""
    bad = unreadable_images(table["path"], progress)
    if not bad:
        return table
    message = _count(bad, table, what)
    if len(bad) == len(table):
        raise UnreadableImageError(message)
    warnings.warn(f"{message}; their rows are left out", stacklevel=2)
    return table[~table["path"].isin(bad)].reset_index(drop=True)


def check_readable(table: pd.DataFrame, what: str) -> None:
    """Open every image of a table (`what`); UnreadableImageError counts the bad ones."""
    if bad := unreadable_images(table["path"]):
        hint = "--skip-unreadable (in Python, skip_unreadable=True) goes on without them"
        raise UnreadableImageError(f"{_count(bad, table, what)}; {hint}")


@contextmanager
def counting_unreadable(table: pd.DataFrame, what: str) -> Iterator[None]:
    """If an unreadable image of a table stops the block, make the error say how many there are."""
    try:
        yield
    except UnreadableImageError:
        check_readable(table, what)
        raise  # it can be read now, or belongs to another table


def _count(bad: list[str], table: pd.DataFrame, what: str) -> str:
    return f"{what}: {len(bad):,} of {len(table):,} images cannot be read: {name_some(bad)}"


# Training and tests ------------------------------------------------------------------------------


def checkpoint_path(loss: str, source: str, profile: str = "laptop", seed: int = 0) -> Path:
    """Path of a model that comes with the book: `data/checkpoints/<run>.safetensors`."""
    return Run(loss, source, profile, seed).shipped()


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

    A teacher that the run needs must have been trained. The model goes to `checkpoint`, or else to
    the run's folder in the cache. `run_folder` keeps a log, and the state from which an interrupted
    training is resumed.
    """
    look_again()
    path = Path(checkpoint or run.folder() / "model.safetensors")
    if (there := _details(path)) and not run.same_source(there):
        raise ValueError(
            f"{path} holds a model trained on other images than {run.source} has now; move it first"
        )
    whole = table = run.table()
    if skip_unreadable:
        table = readable_rows(whole, f"{run.source}, training", progress)
    for folder in (path.parent, records.results_folder() / "train"):
        _files.check_writable(folder)  # now, and not after the training
    taught_by = run.teacher()
    teacher = None if taught_by is None else load_model(taught_by.checkpoint())
    trainer = run.config().trainer(table, teacher=teacher, device=device, run_folder=run_folder)
    start, done_before = time.perf_counter(), trainer.epoch
    with counting_unreadable(table, f"{run.source}, training"):
        model = trainer.train(progress=progress)
    found = {
        "images": len(table),
        **({"unreadable_images": len(whole) - len(table)} if skip_unreadable else {}),
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
        key, name = content_key(target, "test"), f"{name}-on-{file_label(target, 'test')}"
        record |= {"target": target} | ({"target_key": key} if key else {})
    record |= found | records.provenance(device or default_device())
    records.write_record(experiment, name, record)
    return record


def pair_similarities(
    run: Run, target: str | ReidDataset, *, device: str | None = None
) -> dict[str, np.ndarray]:
    """Similarities of a trained model: "query_gallery" (q, g), "query_query" and "gallery_gallery".

    In float32; logits if the model compares maps. Those of a profile's own models are kept in the
    cache folder, under the contents of checkpoint, images and library.
    """
    path = run.checkpoint()
    if not path.is_file():
        raise FileNotFoundError(
            f"no checkpoint at {path}; train the model first with `python -m qaconv_lib train "
            f"{run.loss} {run.source} --profile {run.profile}` and the same further settings (a "
            "model of other settings or other training images does not count)"
        )
    dataset = load_test(target) if isinstance(target, str) else target
    code = sorted(Path(qaconv_lib.__file__).parent.glob("*.py"))
    key = _digest([path, *dataset.query["path"], "", *dataset.gallery["path"], *code])
    kept = _files.cache_folder() / "similarities" / f"{key}.npz"
    if add_up(kept.is_file())[0] == process_count():  # all processes must take the same way
        try:
            with np.load(kept) as stored:
                return dict(stored)
        except (ValueError, EOFError, zipfile.BadZipFile):
            pass  # damaged: compute it again
    model = load_model(path, device or default_device())
    with counting_unreadable(tested(dataset), f"{dataset.name}, query and gallery"):
        query, gallery = (extract_in_shares(model, t) for t in (dataset.query, dataset.gallery))
    blocks = {"query_gallery": (query, gallery), "query_query": (query, query)}
    blocks["gallery_gallery"] = gallery, gallery
    found = {k: similarity_in_shares(model, *v).numpy(force=True) for k, v in blocks.items()}
    if not run.settings and process_rank() == 0:
        content = io.BytesIO()
        np.savez(content, **found)  # type: ignore[arg-type]  # none is called allow_pickle
        try:
            _files.make_folder(kept.parent)
            _files.write_whole(kept, content.getvalue())
        except OSError as error:  # they are here all the same
            warnings.warn(f"the similarities cannot be stored for later use: {error}", stacklevel=2)
    return found


def tested(dataset: ReidDataset) -> pd.DataFrame:
    """Query and gallery images in one table."""
    return pd.concat([dataset.query, dataset.gallery])


def _digest(paths: Iterable[str | Path]) -> str:
    """Names the contents of files, in their order; a missing one counts as empty."""
    key = hashlib.sha256()
    for path in map(Path, paths):
        key.update(hashlib.sha256(path.read_bytes() if path.is_file() else b"").digest())
    return key.hexdigest()[:16]


def probabilities(
    similarity: np.ndarray, loss: str, calibration: list[float] | None = None
) -> np.ndarray:
    """Probabilities of "same person" for TLift; `calibration` of a pooled model: slope, offset."""
    from scipy.special import expit

    if compares_maps(loss):
        return expit(similarity.astype(np.float64))
    slope, offset = calibration or (1.0, 0.0)
    return expit(slope * similarity + offset).astype(np.float32)


def distances(similarity: np.ndarray, loss: str) -> np.ndarray:
    """What re-ranking takes: one minus the similarity, `sigmoid(logits / 10)` of logits."""
    if not compares_maps(loss):
        return 1 - similarity
    return 1 - torch.sigmoid(torch.from_numpy(similarity) / 10).numpy()


def rerank(pairs: dict[str, np.ndarray], loss: str, *, transposed: bool = False) -> np.ndarray:
    """Similarity (q, g) after re-ranking: one minus the distance.

    In the blocks among queries and among gallery images, row i takes image i for the query. In
    releases v1.0 and v1.1, which made the paper's tables, column j takes image j (`transposed`).
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
    """Similarities (q, g) after each stage (Table 2), those with TLift if the dataset has times.

    TLift alone takes probabilities, which a model trained on pairs of a batch does not give.
    """
    reranked = rerank(pairs, loss, transposed=transposed)
    stages = {"alone": pairs["query_gallery"], "+RR": reranked}
    if dataset.has_time:
        if loss != "pairwise":  # its sigmoid is too high: training shows it few strangers
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


def summary(
    similarity: np.ndarray, query: pd.DataFrame, gallery: pd.DataFrame, per_query: bool = True
) -> dict:
    """Accuracy for a record: shares from 0 to 1 and, per query with a match, three lists."""
    scores = score(similarity, query, gallery)
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
