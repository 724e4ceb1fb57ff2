"""The experiments of the paper by name: lists of trials, and how they are run (chapter 12).

Trials that two experiments share are run once, and what has a record with the same settings not at
all.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial

import torch

from qaconv_lib._files import check_writable
from qaconv_lib.datasets import load_dataset
from qaconv_lib.experiments import postprocessing, records, runs
from qaconv_lib.experiments.profiles import DOMAINS, Profile, get_profile, rates
from qaconv_lib.experiments.runs import Run
from qaconv_lib.experiments.search import calibration_of
from qaconv_lib.losses import TABLE1_LOSSES

DIRECTIONS = (("market", "duke"), ("duke", "market"))
SOURCES = ("market", "duke", "msmt17")  # of Tables 3 and 4
_TEACHER = "efficientnet_lite2"  # one of the networks of `table3`
# The shorter of the two is what a warm start takes in all.
_LONGER = {f"{n} epochs": {"epochs": n, "decay_epochs": m} for n, m in ((7, 6), (10, 8))}
#: By name, the loss and the settings of each variant; the first is the model used elsewhere.
ABLATIONS: dict[str, tuple[str, dict[str, dict]]] = {
    "occlusion": ("qaconv", {"white square": {}, "random erasing": {"occlusion": "erasing"},
                             "cutout": {"occlusion": "cutout"},
                             "nothing hidden": {"occlusion": "none"}}),
    "occlusion-size": ("qaconv", {"square up to 0.8 of the width": {},
                                  "square up to 0.4 of the width": {"occlusion_share": 0.4},
                                  "square up to the whole width": {"occlusion_share": 1.0}}),
    "memory": ("qaconv", {"newest map": {}, "moving average": {"memory_update": "ema"}}),
    "focal": ("qaconv", {"focal weight": {}, "no focal weight": {"gamma": 0.0}}),
    "head": ("qaconv", {"a weight for each location": {}, "tied weights": {"tied": True}}),
    "kernel": ("qaconv", {"kernels of 1 × 1": {}, "kernels of 3 × 3": {"kernel_size": 3}}),
    "start": ("qaconv", {"ImageNet weights": {}, "warm start": {"warm_start": 2},
                         "random weights": {"pretrained": False, "frozen_stages": 0}}),
    "epochs": ("qaconv", {"usual schedule": {}} | _LONGER),
    "epochs-arc": ("arc", {"Arc loss, usual schedule": {},
                           "Arc loss, 10 epochs": _LONGER["10 epochs"]}),
    "source-size": ("qaconv", {"all identities": {}}
                    | {f"{number} identities": {"identities": number} for number in (100, 50, 25)}),
    "image-size": ("qaconv", {"usual size": {}, "96 × 48 pixels": {"height": 96, "width": 48},
                              "192 × 96 pixels": {"height": 192, "width": 96}}),
    "departures": ("qaconv", {"as in this book": {},
                              "FC layer at random": {"random_start": "fc"},
                              "last bias 0": {"random_start": "logit_bn"},
                              "neck at random": {"random_start": "neck"},
                              "no BN in the neck": {"neck_norm": False}}),
    "layer": ("qaconv", {"map of layer3": {}, "map of layer4": {"final_layer": "layer4"},
                         "map of layer2": {"final_layer": "layer2"}}),
    "distill": ("qaconv", {"student alone": {}, "the teacher": {"backbone": _TEACHER},
                           "student, taught": {"teacher": _TEACHER},
                           "8 channels, alone": {"neck_channels": 8},
                           "8 channels, taught": {"neck_channels": 8, "teacher": _TEACHER}}),
}  # fmt: skip
#: By name, the training set and the settings of each variant; all see about as many images.
WORLD_IDENTITIES = {
    f"{count:,} people": ("world", {"identities": count, "epochs": n, "decay_epochs": m})
    for count, n, m in ((100, 45, 30), (400, 11, 7))
} | {"1,500 people": ("world", {})}
WORLD_CAMERAS = {
    f"{count} cameras": (f"world-{count}", WORLD_IDENTITIES["400 people"][1]) for count in (5, 10)
} | {"40 cameras": WORLD_IDENTITIES["400 people"]}
#: What was tried for the general model: on 400 people, tested on those held out.
WORLD_SETTINGS = {
    "as chosen": {},
    "half the rates": rates(0.005, 0.005),
    "three times the rates": rates(0.03, 0.03),
    "colours as they are": {"colour_jitter": 0.0},
}
# Ablations whose variants are numbers or networks chosen beside those of the small profiles.
_FOR_SMALL_PROFILES = ("epochs", "epochs-arc", "image-size", "distill")
#: Experiments of the general profile.
WITH_WORLD = ("general", "leave-one-out", "world-settings", "world-identities", "world-cameras")


def check_variants(name: str, profile: Profile) -> None:
    """Raise ValueError if an experiment's variants make no sense for a profile."""
    if name in _FOR_SMALL_PROFILES and profile.base.backbone.startswith("resnet"):
        raise ValueError(
            f"{name} cannot be run at the {profile.name} profile: its variants "
            f"({', '.join(list(ABLATIONS[name][1])[1:])}) are made for the laptop profile"
        )
    if name in WITH_WORLD and profile.name.split("+")[0] != "general":
        raise ValueError(f"{name} is an experiment of another profile: add --profile general")


def graph_sampling_settings(profile: Profile) -> dict[str, tuple[str, dict]]:
    """What `graph-sampling` compares: by name, the loss and its settings.

    Each run sees the same number of images. (Of random images, most would be in no triplet.)
    """
    pairs, triplets = {"triplet_margin": None}, {"triplet_margin": 16.0} | profile.triplets
    return {
        "class memory": ("qaconv", {}),
        "pairs, random images": ("pairwise", {"sampler": "shuffle"} | pairs),
        "pairs, random people": ("pairwise", {"sampler": "pk"} | pairs),
        "pairs, graph": ("pairwise", {"sampler": "graph"} | pairs),
        "triplets, random people": ("pairwise", {"sampler": "pk"} | triplets),
        "triplets, graph": ("pairwise", {"sampler": "graph"} | triplets),
    }


def source_name(profile: Profile, role: str) -> str:
    """The dataset trained on for "market", "duke" or "msmt17"; of MSMT17 all images are used.

    Roles joined by "+" stand for their training sets together.
    """
    joined = "+".join(dataset_name(profile, part) for part in role.split("+"))
    return joined + ("-all" if role == "msmt17" else "")


def dataset_name(profile: Profile, role: str) -> str:
    """The dataset tested on; "world" and "world-10" are drawn for all profiles."""
    return profile.datasets.get(role, f"mini-{role}")


@dataclass(frozen=True)
class Trial:
    """A training run and a dataset its model is tested on."""

    run: Run
    target: str  #: dataset whose query and gallery images are used
    post: bool = False  #: test re-ranking and TLift too

    @property
    def name(self) -> str:
        """Name of the trial's record."""
        return f"{self.run.name}-on-{runs.file_label(self.target, 'test')}"


#: A trial of any seed: loss, source and target by role, settings, and `post`.
Row = tuple[str, str, str, dict, bool]


@dataclass(frozen=True)
class Experiment:
    """A named experiment."""

    title: str
    seeds: int  #: how many it takes unless told otherwise
    rows: Callable[[Profile], list[Row]]  #: the trials of each seed
    #: What is done with a trial's similarities across domains where the target has times, and the
    #: folder of its records.
    after: tuple[str, Callable[[Run, str, str | None, bool], dict]] | None = None


def _losses(profile: Profile, losses: Sequence[str] = TABLE1_LOSSES) -> list[Row]:
    """Every loss in both directions, and within the domain."""
    return [
        (loss, source, target, {}, target != source or loss == "qaconv")
        for loss in losses
        for source, other in DIRECTIONS
        for target in (other, source)
    ]


def _backbones(profile: Profile, *targets: str) -> list[Row]:
    """QAConv with both backbones, from three sources."""
    return [
        ("qaconv", source, target, settings, True)
        for settings in profile.backbones.values()
        for source in SOURCES
        for target in targets
        if target != source
    ]


def _layers(profile: Profile) -> list[Row]:
    return [
        (loss, *direction, settings, not settings)
        for loss, layer3 in profile.on_layer3.items()
        for direction in DIRECTIONS
        for settings in ({}, layer3)
    ]


def _ablation(profile: Profile, name: str) -> list[Row]:
    loss, variants = ABLATIONS[name]
    return [(loss, *DIRECTIONS[0], settings, False) for settings in variants.values()]


def _graph_sampling(profile: Profile) -> list[Row]:
    compared = graph_sampling_settings(profile).values()
    return [(loss, *direction, s, False) for loss, s in compared for direction in DIRECTIONS]


def _general(profile: Profile) -> list[Row]:
    """The general model, and a larger one, on people of all domains that it was not trained on."""
    return [
        ("pairwise", "+".join(("world", *DOMAINS)), target, settings, True)
        for settings in profile.backbones.values()
        for target in (*DOMAINS, "world")
    ]


def _leave_one_out(profile: Profile) -> list[Row]:
    """The world and three domains, tested on the fourth."""
    sources = {target: "+".join(part for part in ("world", *DOMAINS) if part != target)
               for target in DOMAINS}  # fmt: skip
    return [("pairwise", source, target, {}, False) for target, source in sources.items()]


def _world(profile: Profile, variants: dict[str, tuple[str, dict]]) -> list[Row]:
    return [
        ("pairwise", source, target, settings, False)
        for source, settings in variants.values()
        for target in DOMAINS
    ]


_QACONV = partial(_losses, losses=("qaconv",))
EXPERIMENTS: dict[str, Experiment] = {
    "table1": Experiment("What the loss contributes (Table 1)", 5, _losses),
    "table2": Experiment("QAConv, re-ranking, TLift and TFusion (Table 2)", 5, _QACONV,
                         ("tfusion", postprocessing.tfusion_record)),
    "tlift": Experiment("Parameters and variants of TLift (appendix)", 5, _QACONV,
                        ("tlift", postprocessing.tlift_record)),
    "table3": Experiment("Two backbones, three sources, on Duke and Market (Table 3)", 3,
                         lambda profile: _backbones(profile, "duke", "market")),
    "table4": Experiment("Two backbones, three sources, on CUHK03 and MSMT17 (Table 4)", 3,
                         lambda profile: _backbones(profile, "cuhk03", "msmt17")),
    "pooled-layer": Experiment("Pooled features from layer4 and from QAConv's layer3", 3, _layers),
    "general": Experiment("The general model, on people it was not trained on", 1, _general),
    "leave-one-out": Experiment("mini-world and three domains, on the fourth", 1, _leave_one_out),
    "world-settings": Experiment("Settings of the general model, on held-out drawn people", 1,
                                 lambda profile: [
                                     ("pairwise", "world", "world", {"identities": 400} | s, False)
                                     for s in WORLD_SETTINGS.values()
                                 ]),
    "world-identities": Experiment("How many drawn people", 1,
                                   partial(_world, variants=WORLD_IDENTITIES)),
    "world-cameras": Experiment("How many cameras see the people of `synthesize world "
                                "--identities 400`, with `--cameras 5` and `10`", 1,
                                partial(_world, variants=WORLD_CAMERAS)),
    "graph-sampling": Experiment("Class memory, and pairs of batches drawn in several ways", 2,
                                 _graph_sampling),
    **{name: Experiment(f"Ablation: {'; '.join(variants)}", 3, partial(_ablation, name=name))
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
    trials = []
    for seed in range(experiment.seeds if seeds is None else seeds):
        for loss, source, target, settings, post in experiment.rows(chosen):
            run = Run(loss, source_name(chosen, source), chosen.name, seed, settings)
            trials.append(Trial(run, dataset_name(chosen, target), post))
    return trials


def find_record(trial: Trial, folder: str = "evaluate") -> dict | None:
    """The record of a trial that was run with these very settings and images, if there is one."""
    record = records.read_record(folder, trial.name)
    if record is None or record.get("target") != trial.target or not trial.run.made(record):
        return None
    if not runs.same_content(record.get("target_key"), trial.target, "test"):
        return None
    lacking = folder == "evaluate" and trial.post and "+RR" not in record["stages"]
    return None if lacking else record


def evaluate_trial(
    trial: Trial, *, device: str | None = None, skip_unreadable: bool = False
) -> dict:
    """Test a trained model on a dataset, with all post-processing if asked; write the record.

    With `skip_unreadable`, a warning names the images that cannot be read, and the record counts
    them.
    """
    runs.look_again()
    check_writable(records.results_folder() / "evaluate")
    run, data, calibration = trial.run, runs.load_test(trial.target, skip_unreadable), None
    if trial.post and data.has_time:
        calibration = calibration_of(run.loss, run.source, run.profile)
    start = time.perf_counter()
    pairs = runs.pair_similarities(run, data, device=device)
    stages = {"alone": pairs["query_gallery"]}
    if trial.post:
        turned = run.transposed
        stages = runs.similarity_stages(pairs, data, run.loss, calibration, transposed=turned)
    found: dict = {"calibration": calibration}
    found |= {"queries": len(data.query), "gallery": len(data.gallery)}
    if skip_unreadable:
        whole = runs.tested(runs.load_test(trial.target))
        found["unreadable_images"] = len(whole) - len(runs.tested(data))
    found["stages"] = {
        name: runs.summary(value, data.query, data.gallery) for name, value in stages.items()
    }
    found["seconds"] = round(time.perf_counter() - start, 1)
    return runs.record_run("evaluate", run, trial.target, found, device)


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
    """Do the missing runs of an experiment, and return the records of all its trials.

    What would stop a run is looked for before the first training: unreadable images (unless
    `skip_unreadable`), a missing dataset, a loss that has not been searched. `jobs` processes share
    the processor's cores; `report` is called with a line of text whenever a run is done.
    """
    for argument, value in (("seeds", seeds), ("jobs", jobs)):
        if value is not None and value < 1:
            raise ValueError(f"{argument} must be at least 1, got {value}")
    runs.look_again()
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
        for source in dict.fromkeys(trial.run.source for trial in untested):
            runs.check_readable(load_dataset(source).train, f"{source}, training")
        for target in dict.fromkeys(trial.target for trial in untested):
            runs.check_readable(runs.tested(runs.load_test(target)), f"{target}, query and gallery")
    lines = _execute_all(list(waiting.values()), device, jobs, skip_unreadable)
    for number, line in enumerate(lines, start=1):
        left = (time.perf_counter() - start) / number * (len(waiting) - number) / 60
        report(f"[{number} of {len(waiting)}, {left:.0f} min left] {line}")
    found = [record for trial in trials if (record := find_record(trial)) is not None]
    if (after := EXPERIMENTS[name].after) is None:
        return found
    folder, act = after
    for trial in trials:
        if trial.target == trial.run.source or not load_dataset(trial.target).has_time:
            continue
        if (record := find_record(trial, folder)) is None:
            record = act(trial.run, trial.target, device, skip_unreadable)
            report(f"{folder}: {trial.name}")
        found.append(record)
    return found


def _execute_all(
    groups: list[list[Trial]], device: str | None, jobs: int, skip: bool
) -> Iterator[str]:
    if jobs == 1:
        yield from (_execute(group, device, None, skip) for group in groups)
        return
    threads = max(1, (os.cpu_count() or 1) // jobs)
    execute = partial(_execute, device=device, threads=threads, skip=skip)
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        try:
            yield from pool.map(execute, groups)
        except BrokenProcessPool as error:
            raise ChildProcessError(
                f"one of {jobs} processes was killed, perhaps for lack of memory; finished runs "
                "are kept, run the command again with fewer jobs"
            ) from error


def _execute(trials: list[Trial], device: str | None, threads: int | None, skip: bool) -> str:
    """Train a run unless its model exists, test it, and report the result."""
    if threads is not None:
        torch.set_num_threads(threads)
    run, found = trials[0].run, []
    _train(run, device, skip)
    for trial in trials:
        scores = evaluate_trial(trial, device=device, skip_unreadable=skip)["stages"]["alone"]
        found.append(f"{trial.target} {scores['rank1']:.1%} / {scores['mean_ap']:.1%}")
    return f"{run.name}: {', '.join(found)} (rank-1 / mAP)"


def _train(run: Run, device: str | None, skip: bool) -> None:
    """Train a run, after its teacher, unless their models exist."""
    record = records.read_record("train", run.name)
    if run.trained(run.checkpoint()) and record is not None and run.made(record):
        return
    if (teacher := run.teacher()) is not None:
        _train(teacher, device, skip)
    runs.train_run(run, device=device, run_folder=run.folder(), skip_unreadable=skip)
    (run.folder() / "last.safetensors").unlink(missing_ok=True)
