"""Whatever the command `run` runs: experiments, their memory, correspondences and costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from qaconv_lib._checks import ShortOfMemoryError
from qaconv_lib.experiments import suite
from qaconv_lib.experiments.correspondence_records import run_correspondence
from qaconv_lib.experiments.cost import cost_record
from qaconv_lib.experiments.profiles import get_profile
from qaconv_lib.experiments.step_memory import memory_table
from qaconv_lib.experiments.variants import check_variants


def run_by_name(
    name: str | None,
    profile: str,
    *,
    device: str | None = None,
    predict_memory: bool = False,
    report: Callable[[str], None] = lambda line: None,
    **how: Any,
) -> Iterator[str]:
    """Do what the command `run` is asked for, and say it line by line; see `run_experiment`."""
    if name is None:
        for key, experiment in suite.EXPERIMENTS.items():
            yield f"{key:16}{experiment.title} ({experiment.seeds} seeds)"
        yield f"{'correspondence':16}Matches held against part maps (1 seed)"
        yield f"{'cost':16}Time and memory of each step"
    elif name == "correspondence":
        found = run_correspondence(profile, device, report=report)
        yield f"{name}: {len(found)} records; chapter 11 shows them"
    elif name == "cost":
        for row in cost_record(profile, device)["steps"]:
            yield f"{row['step']} ({row['loss']}): {row['seconds']} {row['unit']}"
    elif predict_memory:
        check_variants(name, get_profile(profile))
        trials = suite.list_trials(name, profile, seeds=1)
        for run in {trial.run.name: trial.run for trial in trials}.values():
            yield memory_table(run, device)
    else:
        try:
            records = suite.run_experiment(
                name, profile=profile, device=device, report=report, **how
            )
        except ShortOfMemoryError as error:
            raise ShortOfMemoryError(
                f"{error}; of these settings `run` takes --accumulate, --precision and --workers, "
                "and --jobs says how many runs share the memory"
            ) from error
        yield f"{name}: {len(records)} records; `python -m qaconv_lib tables` prints them"
