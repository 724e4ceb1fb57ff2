"""What a GPU does with the book's code, in at most ten minutes: `make gpu`.

python book/tools/gpu.py                     all steps, on the GPU
python book/tools/gpu.py matching training   some of them
python book/tools/gpu.py --smoke             a tiny form on the CPU, which tests this script

Each step runs in its own process, with a limit of its own, and writes `data/results/gpu/STEP.json`
as it goes; "model" adds records of training and of tests. A step that fails or runs out of time
does not stop the others: it is named at the end.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import refresh
import torch
from torch import Tensor
from torch.utils.benchmark import Timer

from qaconv_lib import load_dataset, make_backbone
from qaconv_lib._files import data_folders
from qaconv_lib.datasets import MINIATURES
from qaconv_lib.experiments import bench, plain, records
from qaconv_lib.experiments.profiles import get_profile
from qaconv_lib.experiments.runs import Run, train_run
from qaconv_lib.experiments.suite import Trial, evaluate_trial
from qaconv_lib.losses import QAConvLoss
from qaconv_lib.matching import QAConv, match_gallery
from qaconv_lib.models import ReidModel

SECONDS = {"matching": 45, "training": 45, "extraction": 45, "model": 240, "notebooks": 195}
SOURCE, TARGETS = "mini-msmt17", ("mini-duke", "mini-market", "mini-cuhk03")
PIECE = 64  # images of the plain form and of the product: 2 GB of similarities for 200 queries
Keep = Callable[[dict], None]  # writes what a step has found until now


def timed(forms: dict[str, Callable[[], object]], flop: float = 0.0) -> dict:
    """Mean time of three calls of each form, after one to warm up, and peak memory on a GPU."""
    rows: dict[str, dict] = {}
    for name, act in forms.items():
        timer = Timer("act()", globals={"act": act}, num_threads=torch.get_num_threads())
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        try:
            timer.timeit(1)
            seconds = timer.timeit(3).mean  # waits for the GPU
        except torch.OutOfMemoryError:
            rows[name] = {"error": "out of memory"}
            continue
        rows[name] = {"seconds": seconds, "gflop_per_second": flop / seconds / 1e9 or None}
        if torch.cuda.is_available():
            rows[name]["megabytes"] = torch.cuda.max_memory_allocated() / 1e6
    return {"rows": rows, "float32": torch.get_float32_matmul_precision()}


def side_by_side(maps: Tensor) -> Tensor:
    """Maps (n, d, h, w) as the columns of a matrix (d, n*h*w)."""
    return maps.flatten(2).transpose(0, 1).flatten(1)


def matching(device: str, smoke: bool, seconds: float, keep: Keep) -> None:
    """Scores of 200 queries and 2,000 gallery images of the paper's size."""
    sizes, shape = ((4, 8), (8, 4, 2)) if smoke else ((200, 2000), bench.SHAPE)
    queries, gallery = (bench.unit_maps(n, n, shape).to(device) for n in sizes)
    matcher = QAConv(*shape[1:]).eval().to(device)

    def product(dtype: torch.dtype) -> None:
        rows = side_by_side(queries).T.to(dtype)
        for part in gallery.to(dtype).split(PIECE):
            torch.mm(rows, side_by_side(part))

    every = partial(match_gallery, matcher, queries, gallery)
    forms: dict[str, Callable[[], object]] = {
        "library": every,
        "plain": lambda: [plain.match_gallery(matcher, queries, g) for g in gallery.split(PIECE)],
        "product": partial(product, torch.float32),
        "library, bfloat16": partial(every, dtype=torch.bfloat16),
        "product, bfloat16": partial(product, torch.bfloat16),
    }
    flop = 2 * sizes[0] * sizes[1] * shape[0] * (shape[1] * shape[2]) ** 2
    keep(timed(forms, flop) | {"size": [*sizes, *shape]})


def training(device: str, smoke: bool, seconds: float, keep: Keep) -> None:
    """Loss and gradient of a batch of 32 against the class memory of Market-1501."""
    classes, shape = (40, (8, 4, 2)) if smoke else (751, bench.SHAPE)
    criterion = QAConvLoss(classes, *shape).to(device)
    memory = criterion.memory.features.copy_(bench.unit_maps(classes, 1, shape))
    criterion.memory.valid.fill_(True)
    maps = bench.unit_maps(32, 2, shape).to(device).requires_grad_()
    labels = torch.arange(32, device=device)

    def product() -> None:  # forward, and the gradient of the maps
        rows = side_by_side(maps.detach()).T
        for part in map(side_by_side, memory.split(PIECE)):
            torch.mm(torch.mm(rows, part), part.T)

    loss = partial(plain.qaconv_loss, criterion.matcher, maps, memory, labels)
    forms: dict[str, Callable[[], object]] = {
        "library": lambda: criterion(maps, labels)[0].backward(),
        "plain": lambda: loss().backward(),
        "product": product,
    }
    flop = 4 * 32 * classes * shape[0] * (shape[1] * shape[2]) ** 2
    keep(timed(forms, flop) | {"size": [32, classes, *shape]})


def extraction(device: str, smoke: bool, seconds: float, keep: Keep) -> None:
    """Maps of images by the profile's network, untrained; reading the files included."""
    config = get_profile("smoke" if smoke else "paper").config("qaconv", pretrained=False)
    network = ReidModel(config, 2).to(device)
    table = load_dataset(SOURCE).gallery.head(8 if smoke else 512)
    keep(timed({config.backbone: lambda: network.extract(table)}) | {"images": len(table)})


def model(device: str, smoke: bool, seconds: float, keep: Keep) -> None:
    """Train the profile's model for as many epochs as fit, and test it where there are images."""
    start, profile, settings = time.perf_counter(), "smoke" if smoke else "paper", {}
    try:
        make_backbone(get_profile(profile).base.backbone, pretrained=True)
    except OSError:  # neither here nor to be had: start from random weights
        settings = {"pretrained": False, "frozen_stages": 0}

    def run(epochs: int) -> Run:
        how = {"epochs": epochs, "decay_epochs": max(1, round(epochs * 2 / 3))}
        return Run("qaconv", SOURCE, profile, settings=settings | how)

    trainer, before = run(1).config().trainer(run(1).table(), device=device), time.perf_counter()
    trainer.train()
    epoch = time.perf_counter() - before
    left = 0.85 * seconds - (time.perf_counter() - start)  # the rest is for the tests
    chosen = run(1 if smoke else max(1, min(60, int(left / epoch))))
    found: dict = {"run": chosen.name, "seconds_per_epoch": epoch, "tests": {}}
    keep(found)
    train_run(chosen, device=device)
    for target in here(*TARGETS)[: 1 if smoke else None]:
        scores = evaluate_trial(Trial(chosen, target), device=device)["stages"]["alone"]
        found["tests"][target] = {name: scores[name] for name in ("rank1", "mean_ap")}
        keep(found)


def here(*names: str) -> list[str]:
    """Those of some miniatures whose archives this machine has."""
    return [n for n in names if any((folder / f"{n}.zip").is_file() for folder in data_folders())]


def notebooks(device: str, smoke: bool, seconds: float, keep: Keep) -> None:
    """Run a copy of every notebook whose datasets are here, several at a time."""
    rows: dict[str, dict] = {}

    def execute(path: Path) -> None:
        notebook, start, error = refresh.read(path), time.perf_counter(), None
        code = "".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
        needed = {archive for name, (archive, _) in MINIATURES.items() if name in code}
        if lacking := needed - {*here(*needed)}:
            rows[path.stem] = {"left_out": f"needs {', '.join(sorted(lacking))}"}
            return
        try:
            refresh.execute(notebook)
        except Exception as problem:  # a cell fails, takes too long, or the kernel dies
            error = str(problem).strip().splitlines()[-1]
        rows[path.stem] = {"seconds": time.perf_counter() - start, "error": error}
        keep({"rows": dict(sorted(rows.items()))})

    with ThreadPoolExecutor(max(1, min(4, (os.cpu_count() or 1) // 2))) as pool:
        list(pool.map(execute, sorted(refresh.BOOK.glob("03_*.ipynb" if smoke else "*.ipynb"))))
    if failed := [name for name, row in rows.items() if row.get("error")]:
        sys.exit(f"gpu: these notebooks failed: {', '.join(failed)}")


STEPS = {act.__name__: act for act in (matching, training, extraction, model, notebooks)}


def run_step(name: str, smoke: bool, seconds: float) -> None:
    """Do one step in this process, and write its record."""
    device, start = "cpu" if smoke else "cuda", time.perf_counter()
    about = {"experiment": "gpu", "loss": "qaconv", "source": SOURCE, "seed": 0, "step": name}
    about |= {"profile": "smoke" if smoke else "paper", **records.provenance(device)}

    def keep(found: dict) -> None:
        spent = {"step_seconds": round(time.perf_counter() - start, 1)}
        records.write_record("gpu", name, about | found | spent)

    STEPS[name](device, smoke, seconds, keep)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"default: {', '.join(STEPS)}")
    parser.add_argument("--smoke", action="store_true", help="a tiny form, on the CPU")
    parser.add_argument("--minutes", type=float, default=9.5, help="for all steps (default: 9.5)")
    parser.add_argument("--within", type=float, help=argparse.SUPPRESS)  # seconds of a step's child
    options = parser.parse_args(arguments)
    if unknown := set(options.steps) - set(STEPS):
        parser.error(f"unknown step {', '.join(sorted(unknown))}; known are {', '.join(STEPS)}")
    if options.within is not None:
        run_step(options.steps[0], options.smoke, options.within)
        return 0
    if not options.smoke and not torch.cuda.is_available():
        parser.error("PyTorch finds no GPU here; --smoke tries the script on the CPU")
    failed = []
    for name in options.steps or STEPS:
        limit, start = 60 * options.minutes * SECONDS[name] / sum(SECONDS.values()), time.time()
        command = [sys.executable, __file__, name, "--within", str(limit)]
        child = subprocess.Popen(command + ["--smoke"] * options.smoke, start_new_session=True)
        try:
            outcome = f"failed with status {child.returncode}" if child.wait(limit) else "done"
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)  # and the kernels and loaders that it started
            outcome = "ran out of time; its record, if any, has what was found until then"
        print(f"gpu: {name}: {outcome} ({time.time() - start:.0f} of {limit:.0f} s)", flush=True)
        failed += [name] * (outcome != "done")
    print(f"gpu: not done: {', '.join(failed)}" if failed else "gpu: all steps done")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
