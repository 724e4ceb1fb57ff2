"""The experiments of the paper by name, and how they are run (chapter 12).

An experiment is a list of trials: a training run and a dataset it is tested on. Trials that two
experiments share are run once. What has a record with the same settings is not run again, so an
experiment that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

import torch

from qaconv_lib.datasets import load_dataset, load_test
from qaconv_lib.losses import TABLE1_LOSSES
from qaconv_lib.models import default_device
from qaconv_lib.postprocessing import tfusion_record, tlift_record
from qaconv_lib.profiles import Profile, get_profile
from qaconv_lib.records import provenance, read_record, write_record
from qaconv_lib.runs import Run, pair_similarities, score, similarity_stages, summary, train_run
from qaconv_lib.search import calibration_of
from qaconv_lib.variants import ABLATIONS, DIRECTIONS, GRAPH_SAMPLING


@dataclass(frozen=True)
class Trial:
    """A training run and a dataset its model is tested on.

    Attributes:
        run: the training run.
        target: dataset whose query and gallery images are used.
        post: test re-ranking and TLift too.
    """

    run: Run
    target: str
    post: bool = False

    @property
    def name(self) -> str:
        """Name of the trial's record."""
        return f"{self.run.name}-on-{self.target}"


@dataclass(frozen=True)
class Experiment:
    """A named experiment.

    Attributes:
        title: what it asks.
        seeds: how many seeds it takes unless told otherwise.
        trials: the trials of one seed, at a profile.
        after: what is done with a trial's similarities across domains where the target has times,
            and the folder of its records.
    """

    title: str
    seeds: int
    trials: Callable[[Profile, int], Iterator[Trial]]
    after: tuple[str, Callable[[Run, str, str | None], dict]] | None = None


def _losses(profile: Profile, seed: int, losses: Sequence[str] = TABLE1_LOSSES) -> Iterator[Trial]:
    for loss in losses:
        for source, target in DIRECTIONS:
            run = Run(loss, profile.datasets[source], profile.name, seed)
            yield Trial(run, profile.datasets[target], post=True)
            yield Trial(run, profile.datasets[source], post=loss == "qaconv")


def _backbones(profile: Profile, seed: int, targets: Sequence[str]) -> Iterator[Trial]:
    for settings in profile.backbones.values():
        for source in ("market", "duke", "msmt17"):
            images = profile.datasets[source] + ("-all" if source == "msmt17" else "")
            run = Run("qaconv", images, profile.name, seed, settings)
            for target in targets:
                if target != source:
                    yield Trial(run, profile.datasets[target], post=True)


def _pooled_layers(profile: Profile, seed: int) -> Iterator[Trial]:
    for loss, layer3 in profile.on_layer3.items():
        for source, target in DIRECTIONS:
            for settings in ({}, layer3):
                run = Run(loss, profile.datasets[source], profile.name, seed, settings)
                yield Trial(run, profile.datasets[target], post=not settings)


def _ablation(name: str) -> Callable[[Profile, int], Iterator[Trial]]:
    loss, variants = ABLATIONS[name]

    def trials(profile: Profile, seed: int) -> Iterator[Trial]:
        source, target = (profile.datasets[role] for role in DIRECTIONS[0])
        for settings in variants.values():
            yield Trial(Run(loss, source, profile.name, seed, settings), target)

    return trials


def graph_sampling_settings(profile: Profile) -> dict[str, tuple[str, dict]]:
    """`GRAPH_SAMPLING` at a profile: triplets have settings of their own."""
    return {
        name: (loss, settings | (profile.triplets if settings.get("triplet_margin") else {}))
        for name, (loss, settings) in GRAPH_SAMPLING.items()
    }


def _graph_sampling(profile: Profile, seed: int) -> Iterator[Trial]:
    for loss, settings in graph_sampling_settings(profile).values():
        for source, target in DIRECTIONS:
            run = Run(loss, profile.datasets[source], profile.name, seed, settings)
            yield Trial(run, profile.datasets[target])


EXPERIMENTS: dict[str, Experiment] = {
    "table1": Experiment("What the loss contributes (Table 1)", 5, _losses),
    "table2": Experiment(
        "QAConv, re-ranking, TLift and TFusion (Table 2)",
        5,
        lambda profile, seed: _losses(profile, seed, ("qaconv",)),
        ("tfusion", tfusion_record),
    ),
    "tlift": Experiment(
        "Parameters and variants of TLift (appendix)",
        5,
        lambda profile, seed: _losses(profile, seed, ("qaconv",)),
        ("tlift", tlift_record),
    ),
    "table3": Experiment(
        "Two backbones, three sources, on Duke and Market (Table 3)",
        3,
        lambda profile, seed: _backbones(profile, seed, ("duke", "market")),
    ),
    "table4": Experiment(
        "Two backbones, three sources, on CUHK03 and MSMT17 (Table 4)",
        3,
        lambda profile, seed: _backbones(profile, seed, ("cuhk03", "msmt17")),
    ),
    "pooled-layer": Experiment(
        "Pooled features from layer4 and from QAConv's layer3", 3, _pooled_layers
    ),
    "graph-sampling": Experiment(
        "Class memory, and pairs of batches drawn in several ways", 3, _graph_sampling
    ),
    **{
        name: Experiment(f"Ablation: {'; '.join(variants)}", 3, _ablation(name))
        for name, (_, variants) in ABLATIONS.items()
    },
}


def get_experiment(name: str) -> Experiment:
    """An experiment by name; ValueError lists the known ones."""
    if name not in EXPERIMENTS:
        raise ValueError(
            f"unknown experiment {name!r}; known are {', '.join(EXPERIMENTS)} "
            "(`python -m qaconv_lib run` lists what they ask, and two more)"
        )
    return EXPERIMENTS[name]


def list_trials(name: str, profile: str = "laptop", seeds: int | None = None) -> list[Trial]:
    """The trials of an experiment, seed by seed."""
    experiment, chosen = get_experiment(name), get_profile(profile)
    count = experiment.seeds if seeds is None else seeds
    return [trial for seed in range(count) for trial in experiment.trials(chosen, seed)]


def find_record(trial: Trial, folder: str = "evaluate") -> dict | None:
    """The record of a trial that was run with these very settings, if there is one."""
    record = read_record(folder, trial.name)
    if record is None or record.get("target") != trial.target or not trial.run.made(record):
        return None
    lacking = folder == "evaluate" and trial.post and "+RR" not in record["stages"]
    return None if lacking else record


def evaluate_trial(
    trial: Trial, *, device: str | None = None, skip_unreadable: bool = False
) -> dict:
    """Test a trained model on a dataset, with all post-processing if asked; write the record.

    With `skip_unreadable`, images that cannot be read are left out and a warning names them.
    """
    run, dataset = trial.run, load_test(trial.target, skip_unreadable)
    calibration = None
    if trial.post and dataset.has_time:
        calibration = calibration_of(run.loss, run.source, run.profile)
    start = time.perf_counter()
    pairs = pair_similarities(run, dataset, device=device, keep=not run.settings)
    stages = {"alone": pairs["query_gallery"]}
    if trial.post:
        stages = similarity_stages(pairs, dataset, run.loss, calibration)
    record = {
        "experiment": "evaluate",
        **run.about,
        "target": trial.target,
        "config": dataclasses.asdict(run.config()),
        "calibration": calibration,
        "queries": len(dataset.query),
        "gallery": len(dataset.gallery),
        "stages": {
            name: summary(score(value, dataset.query, dataset.gallery))
            for name, value in stages.items()
        },
        "seconds": round(time.perf_counter() - start, 1),
        **provenance(device or default_device()),
    }
    write_record("evaluate", trial.name, record)
    return record


def run_experiment(
    name: str,
    *,
    profile: str = "laptop",
    seeds: int | None = None,
    device: str | None = None,
    jobs: int = 1,
    report: Callable[[str], None] = lambda line: None,
) -> list[dict]:
    """Run what an experiment still lacks, and return the records of all its trials.

    Args:
        name: one of `EXPERIMENTS`.
        profile: smoke, laptop or paper.
        seeds: seeds 0 to seeds - 1; None takes the experiment's own number.
        device: e.g. "cpu" or "cuda"; the GPU if there is one.
        jobs: processes that work side by side, the processor's cores shared between them.
        report: called with a line of text whenever a run is done.

    Raises:
        ValueError: an unknown name or profile, or a number below 1.
        FileNotFoundError: a dataset is not there, or a loss has not been searched.
    """
    for argument, value in (("seeds", seeds), ("jobs", jobs)):
        if value is not None and value < 1:
            raise ValueError(f"{argument} must be at least 1, got {value}")
    trials = list_trials(name, profile, seeds)
    waiting: dict[str, list[Trial]] = {}
    for trial in trials:
        if find_record(trial) is None:
            waiting.setdefault(trial.run.name, []).append(trial)
    done, start = len({t.run.name for t in trials}) - len(waiting), time.perf_counter()
    report(f"{name}: {done} of {done + len(waiting)} runs have their records")
    for number, line in enumerate(_execute_all(list(waiting.values()), device, jobs), start=1):
        left = (time.perf_counter() - start) / number * (len(waiting) - number) / 60
        report(f"[{number} of {len(waiting)}, {left:.0f} min left] {line}")
    records = [record for trial in trials if (record := find_record(trial)) is not None]
    if after := get_experiment(name).after:
        records += _after_all(trials, *after, device, report)
    return records


def _after_all(
    trials: list[Trial],
    folder: str,
    act: Callable[[Run, str, str | None], dict],
    device: str | None,
    report: Callable[[str], None],
) -> list[dict]:
    records = []
    for trial in trials:
        if trial.target != trial.run.source and load_dataset(trial.target).has_time:
            record = find_record(trial, folder)
            if record is None:
                record = act(trial.run, trial.target, device)
                report(f"{folder}: {trial.name}")
            records.append(record)
    return records


def _execute_all(groups: list[list[Trial]], device: str | None, jobs: int) -> Iterator[str]:
    if jobs == 1:
        yield from (_execute(group, device, None) for group in groups)
        return
    threads = max(1, (os.cpu_count() or 1) // jobs)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        futures = [pool.submit(_execute, group, device, threads) for group in groups]
        try:
            yield from (future.result() for future in futures)
        except BrokenProcessPool as error:
            raise ChildProcessError(
                f"one of {jobs} processes was killed, perhaps for want of memory; what was done is "
                "kept, run the command again with fewer jobs"
            ) from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _execute(trials: list[Trial], device: str | None, threads: int | None) -> str:
    """Train a run unless its model is there, test it, and say what came out."""
    if threads is not None:
        torch.set_num_threads(threads)
    run = trials[0].run
    _train(run, device)
    found = []
    for trial in trials:
        scores = evaluate_trial(trial, device=device)["stages"]["alone"]
        found.append(f"{trial.target} {scores['rank1']:.1%} / {scores['mean_ap']:.1%}")
    return f"{run.name}: {', '.join(found)} (rank-1 / mAP)"


def _train(run: Run, device: str | None) -> None:
    """Train a run, and before it the one that teaches it, unless their models are there."""
    if _has_model(run):
        return
    if (teacher := run.teacher()) is not None:
        _train(teacher, device)
    train_run(run, device=device, run_folder=run.folder())
    (run.folder() / "last.safetensors").unlink(missing_ok=True)


def _has_model(run: Run) -> bool:
    """Whether the run's model is there, trained with the settings the run has now."""
    if not run.trained(run.checkpoint()):
        return False
    record = read_record("train", run.name)
    return record is not None and run.made(record)
