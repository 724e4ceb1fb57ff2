"""The experiments of the paper by name, and how they are run (chapter 12).

An experiment is a list of trials: a training run and a dataset it is tested on. Trials that two
experiments share are run once. What has a record with the same settings is not run again.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial

import torch

from qaconv_lib._files import check_writable
from qaconv_lib.datasets import UnreadableImageError, load_dataset
from qaconv_lib.experiments.postprocessing import tfusion_record, tlift_record
from qaconv_lib.experiments.profiles import Profile, get_profile
from qaconv_lib.experiments.records import read_record, results_folder
from qaconv_lib.experiments.runs import (
    Run,
    check_readable,
    look_again,
    pair_similarities,
    record_run,
    same_content,
    score,
    similarity_stages,
    summary,
    train_run,
)
from qaconv_lib.experiments.search import calibration_of
from qaconv_lib.experiments.unreadable import load_test
from qaconv_lib.experiments.variants import (
    ABLATIONS,
    Row,
    Trial,
    ablation_rows,
    backbone_rows,
    check_variants,
    graph_sampling_rows,
    layer_rows,
    loss_rows,
    trials_of,
)


@dataclass(frozen=True)
class Experiment:
    """A named experiment."""

    title: str
    seeds: int  #: how many it takes unless told otherwise
    rows: Callable[[Profile], list[Row]]  #: the trials of each seed
    #: What is done with a trial's similarities across domains where the target has times, and the
    #: folder of its records.
    after: tuple[str, Callable[[Run, str, str | None], dict]] | None = None


def _qaconv(profile: Profile) -> list[Row]:
    return loss_rows(profile, ("qaconv",))


EXPERIMENTS: dict[str, Experiment] = {
    "table1": Experiment("What the loss contributes (Table 1)", 5, loss_rows),
    "table2": Experiment("QAConv, re-ranking, TLift and TFusion (Table 2)", 5, _qaconv,
                         ("tfusion", tfusion_record)),
    "tlift": Experiment("Parameters and variants of TLift (appendix)", 5, _qaconv,
                        ("tlift", tlift_record)),
    "table3": Experiment("Two backbones, three sources, on Duke and Market (Table 3)", 3,
                         backbone_rows("duke", "market")),
    "table4": Experiment("Two backbones, three sources, on CUHK03 and MSMT17 (Table 4)", 3,
                         backbone_rows("cuhk03", "msmt17")),
    "pooled-layer": Experiment("Pooled features from layer4 and from QAConv's layer3", 3,
                               layer_rows),
    "graph-sampling": Experiment("Class memory, and pairs of batches drawn in several ways", 2,
                                 graph_sampling_rows),
    **{name: Experiment(f"Ablation: {'; '.join(variants)}", 3, ablation_rows(name))
       for name, (_, variants) in ABLATIONS.items()},
}  # fmt: skip


def list_trials(name: str, profile: str = "laptop", seeds: int | None = None) -> list[Trial]:
    """The trials of an experiment, seed by seed; ValueError for an unknown name."""
    if name not in EXPERIMENTS:
        raise ValueError(
            f"unknown experiment {name!r}; known are {', '.join(EXPERIMENTS)} "
            "(`python -m qaconv_lib run` lists what they ask, and two more)"
        )
    experiment, chosen = EXPERIMENTS[name], get_profile(profile)
    rows, count = experiment.rows(chosen), experiment.seeds if seeds is None else seeds
    return [trial for seed in range(count) for trial in trials_of(rows, chosen, seed)]


def find_record(trial: Trial, folder: str = "evaluate") -> dict | None:
    """The record of a trial that was run with these very settings, if there is one."""
    record = read_record(folder, trial.name)
    if record is None or record.get("target") != trial.target or not trial.run.made(record):
        return None
    if not same_content(record, trial.target, "test"):
        return None
    lacking = folder == "evaluate" and trial.post and "+RR" not in record["stages"]
    return None if lacking else record


def evaluate_trial(
    trial: Trial, *, device: str | None = None, skip_unreadable: bool = False
) -> dict:
    """Test a trained model on a dataset, with all post-processing if asked; write the record.

    With `skip_unreadable`, images that cannot be read are left out, a warning names them, and the
    record says how many they are.
    """
    look_again()
    check_writable(results_folder() / "evaluate")
    run, dataset, lost = trial.run, load_test(trial.target, skip_unreadable), {}
    if skip_unreadable:
        whole = load_test(trial.target)
        lost["unreadable_images"] = len(whole.query) - len(dataset.query)
        lost["unreadable_images"] += len(whole.gallery) - len(dataset.gallery)
    calibration = None
    if trial.post and dataset.has_time:
        calibration = calibration_of(run.loss, run.source, run.profile)
    start = time.perf_counter()
    pairs = pair_similarities(run, dataset, device=device)
    stages = {"alone": pairs["query_gallery"]}
    if trial.post:
        stages = similarity_stages(pairs, dataset, run.loss, calibration, transposed=run.transposed)
    found = {
        "calibration": calibration,
        "queries": len(dataset.query),
        "gallery": len(dataset.gallery),
        **lost,
        "stages": {
            name: summary(score(value, dataset.query, dataset.gallery))
            for name, value in stages.items()
        },
        "seconds": round(time.perf_counter() - start, 1),
    }
    return record_run("evaluate", run, trial.target, found, device)


def run_experiment(
    name: str,
    *,
    profile: str = "laptop",
    seeds: int | None = None,
    device: str | None = None,
    jobs: int = 1,
    skip_unreadable: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> list[dict]:
    """Run what an experiment still lacks, and return the records of all its trials.

    What would stop a run is looked for before the first training: unreadable images, a missing
    dataset, a loss that has not been searched.

    Args:
        name: one of `EXPERIMENTS`.
        profile: smoke, laptop or paper.
        seeds: seeds 0 to seeds - 1; None takes the experiment's own number.
        device: e.g. "cpu" or "cuda"; the GPU if there is one.
        jobs: processes that share the processor's cores.
        skip_unreadable: leave out images that cannot be read. What `after` does takes whole
            datasets, and is left out where there are such images.
        report: called with a line of text whenever a run is done.
    """
    for argument, value in (("seeds", seeds), ("jobs", jobs)):
        if value is not None and value < 1:
            raise ValueError(f"{argument} must be at least 1, got {value}")
    look_again()
    check_variants(name, get_profile(profile))
    trials = list_trials(name, profile, seeds)
    untested = [trial for trial in trials if find_record(trial) is None]
    waiting: dict[str, list[Trial]] = {}
    for trial in untested:
        waiting.setdefault(trial.run.name, []).append(trial)
    done, start = len({t.run.name for t in trials}) - len(waiting), time.perf_counter()
    report(f"{name}: {done} of {done + len(waiting)} runs have their records")
    for loss, source in sorted({(t.run.loss, t.run.source) for t in untested if t.post}):
        calibration_of(loss, source, profile)
    if not skip_unreadable:
        check_readable((trial.run.source, trial.target) for trial in untested)
    lines = _execute_all(list(waiting.values()), device, jobs, skip_unreadable)
    for number, line in enumerate(lines, start=1):
        left = (time.perf_counter() - start) / number * (len(waiting) - number) / 60
        report(f"[{number} of {len(waiting)}, {left:.0f} min left] {line}")
    records = [record for trial in trials if (record := find_record(trial)) is not None]
    if after := EXPERIMENTS[name].after:
        records += _follow_up(*after, trials, device, skip_unreadable, report)
    return records


def _follow_up(
    folder: str,
    act: Callable[[Run, str, str | None], dict],
    trials: list[Trial],
    device: str | None,
    skip_unreadable: bool,
    report: Callable[[str], None],
) -> list[dict]:
    """The records of what is done with the similarities; what is missing is done now."""
    records = []
    for trial in trials:
        if trial.target == trial.run.source or not load_dataset(trial.target).has_time:
            continue
        if (record := find_record(trial, folder)) is None:
            try:
                record = act(trial.run, trial.target, device)
            except UnreadableImageError:
                if not skip_unreadable:
                    raise
                report(f"{folder}: {trial.name} left out, as it takes unreadable images too")
                continue
            report(f"{folder}: {trial.name}")
        records.append(record)
    return records


def _execute_all(
    groups: list[list[Trial]], device: str | None, jobs: int, skip_unreadable: bool
) -> Iterator[str]:
    if jobs == 1:
        yield from (_execute(group, device, None, skip_unreadable) for group in groups)
        return
    threads = max(1, (os.cpu_count() or 1) // jobs)
    execute = partial(_execute, device=device, threads=threads, skip=skip_unreadable)
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        try:
            yield from pool.map(execute, groups)
        except BrokenProcessPool as error:
            raise ChildProcessError(
                f"one of {jobs} processes was killed, perhaps for lack of memory; finished runs "
                "are kept, run the command again with fewer jobs"
            ) from error


def _execute(trials: list[Trial], device: str | None, threads: int | None, skip: bool) -> str:
    """Train a run unless its model is there, test it, and say what came out."""
    if threads is not None:
        torch.set_num_threads(threads)
    run, found = trials[0].run, []
    _train(run, device, skip)
    for trial in trials:
        scores = evaluate_trial(trial, device=device, skip_unreadable=skip)["stages"]["alone"]
        found.append(f"{trial.target} {scores['rank1']:.1%} / {scores['mean_ap']:.1%}")
    return f"{run.name}: {', '.join(found)} (rank-1 / mAP)"


def _train(run: Run, device: str | None, skip_unreadable: bool) -> None:
    """Train a run, and before it the one that teaches it, unless their models are there."""
    record = read_record("train", run.name)
    if run.trained(run.checkpoint()) and record is not None and run.made(record):
        return
    if (teacher := run.teacher()) is not None:
        _train(teacher, device, skip_unreadable)
    train_run(run, device=device, run_folder=run.folder(), skip_unreadable=skip_unreadable)
    (run.folder() / "last.safetensors").unlink(missing_ok=True)
