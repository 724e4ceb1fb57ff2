"""The library compared with the plain forms: `python -m qaconv_lib bench` (appendix A).

Most of the `CASES` run both forms on the same random input, in one process, in turns, and check
that the results agree. The fastest turn counts: other work on the machine only slows a turn down.
"""

from __future__ import annotations

import copy
import ctypes
import gc
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from qaconv_lib.backbones import Backbone, fold_norms
from qaconv_lib.datasets import load_dataset
from qaconv_lib.evaluation import evaluate_ranking
from qaconv_lib.experiments import plain, records
from qaconv_lib.experiments.profiles import get_profile
from qaconv_lib.experiments.runs import checkpoint_path, rerank, score, times
from qaconv_lib.losses import QAConvLoss
from qaconv_lib.matches.explorer import matcher_of
from qaconv_lib.matching import QAConv, match_gallery
from qaconv_lib.models import ReidModel, load_model
from qaconv_lib.reranking import k_reciprocal_rerank
from qaconv_lib.scale.retrieval import match_shortlist, shortlist
from qaconv_lib.scale.store import pool_maps
from qaconv_lib.scale.streaming import rerank_streaming, vector_distances
from qaconv_lib.temporal import tlift

SHAPE = (128, 24, 8)  # the paper's maps
TURNS = 3
LENGTHS = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000)  # of shortlists


class Measured(NamedTuple):
    """What one call took, and its result."""

    seconds: float
    megabytes: float | None  #: beyond what was held before; None if unknown
    result: Any


def measure(act: Callable[[], Any]) -> Measured:
    """Run a function once."""
    gc.collect()
    before = _start_memory()
    start = time.perf_counter()
    result = act()
    seconds = time.perf_counter() - start
    extra = None if before is None else max(0.0, (_memory("VmHWM") - before) / 1e6)
    return Measured(seconds, extra, result)


def in_turns(**acts: Callable[[], Any]) -> dict[str, Measured]:
    """Run functions one after the other, `TURNS` times; of each keep the fastest run.

    Memory is that of the first run: later ones may find memory that an earlier one left.
    """
    found = {name: measure(act) for name, act in acts.items()}
    for _ in range(TURNS - 1):
        for name, act in acts.items():
            seconds = min(found[name].seconds, measure(act).seconds)
            found[name] = found[name]._replace(seconds=seconds)
    return found


def _start_memory() -> int | None:
    """Return free memory, reset the peak, and give the memory in use, in bytes (Linux)."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        return _memory("VmRSS")
    except (OSError, AttributeError):  # another C library, or a system that forbids it
        return None


def _memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))


def compare(
    step: str, size: str, found: dict[str, Measured], tolerance: float = 1e-6, norm: bool = False
) -> dict:
    """A row about the form "library" of a step, beside the form "plain" if it was run.

    ArithmeticError if their results differ by more than the tolerance: at the largest difference
    or, with `norm`, in the norm of the difference over that of the plain form. That is for
    gradients through maxima, where similarities equal but for rounding may change places.
    """
    mine, theirs = found["library"], found.get("plain")
    row = {"seconds": mine.seconds, "megabytes": mine.megabytes}
    if theirs is not None:
        row |= {"plain_seconds": theirs.seconds, "plain_megabytes": theirs.megabytes}
        row |= {"ratio": theirs.seconds / mine.seconds}
        first, second = (np.asarray(form.result, np.float64) for form in (mine, theirs))
        row["largest_difference"] = judged = float(np.abs(first - second).max())
        if norm:
            judged = float(np.linalg.norm(first - second) / np.linalg.norm(second))
            row["relative_error"] = judged
        if not judged <= tolerance:
            raise ArithmeticError(f"{step} at {size}: the two forms differ by {judged:.3g}")
    return {"step": step, "size": size} | rounded(row)


def rounded(row: dict) -> dict:
    """Three digits of every number; None stays None."""
    return {key: None if value is None else float(f"{value:.3g}") for key, value in row.items()}


# Cases --------------------------------------------------------------------------------------------


def unit_maps(count: int, seed: int, shape: Sequence[int]) -> Tensor:
    """Random maps of shape `(count, *shape)`, with unit channels."""
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, *shape, generator=generator), dim=1)


def clustered_vectors(count: int) -> np.ndarray:
    """Unit vectors (count, 64) of people with about fifteen images each."""
    rng = np.random.default_rng(0)
    people = rng.normal(size=(max(1, count // 15), 64))
    vectors = people[rng.integers(len(people), size=count)] + 1.2 * rng.normal(size=(count, 64))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def _matching_forms(
    num_query: int, num_gallery: int, shape: Sequence[int]
) -> dict[str, Callable[[], Any]]:
    """From the plain form to `match_gallery`, one change at a time, then the products alone."""
    matcher = QAConv(*shape[1:]).eval()
    queries, gallery = maps = unit_maps(num_query, 0, shape), unit_maps(num_gallery, 1, shape)
    weights, number = matcher.fold()

    def in_pieces(size: int, act: Callable[[Tensor], Tensor]) -> Tensor:
        found = torch.empty(num_query, num_gallery)  # first: a list of columns scatters the memory
        for start in range(0, num_gallery, size):
            found[:, start : start + size] = act(gallery[start : start + size])
        return found

    def convolutions() -> None:  # the same products as `products`, of channels-last maps
        images = queries.contiguous(memory_format=torch.channels_last)
        kernels = gallery.flatten(2).transpose(1, 2)[..., None, None]  # (g, h*w, d, 1, 1)
        for block in images.split(max(1, 2**20 // queries[0, 0].numel() ** 2)):
            for kernel in kernels:
                F.conv2d(block, kernel)

    def products() -> None:  # behind the similarities, and nothing of what follows them
        rows = queries.flatten(2).transpose(1, 2).flatten(0, 1)  # (q*h*w, d)
        columns = gallery.transpose(0, 1).flatten(1)  # (d, g*h*w)
        width = 10 * queries[0, 0].numel()
        out = torch.empty(len(rows), width)  # written again and again
        for part in columns.split(width, dim=1):
            torch.mm(rows, part, out=out[:, : part.shape[1]])

    def folded(piece: Tensor) -> Tensor:
        return plain.best_matches(queries, piece) @ weights + number

    every = partial(plain.match_gallery, matcher, queries)
    return {
        "all pairs at once": partial(in_pieces, max(1, 64_000 // num_query), every),  # in 10 GB
        "one gallery image at a time": partial(in_pieces, 1, every),
        "head folded into a dot product": partial(in_pieces, 1, folded),
        "full blocks, maxima in one piece": partial(match_gallery, matcher, *maps),
        "bfloat16": partial(match_gallery, matcher, *maps, dtype=torch.bfloat16),
        "the products alone": products,
        "the products as convolutions": convolutions,
    }


def bench_optimisations(num_query: int, num_gallery: int) -> list[dict]:
    """A row for each of `_matching_forms`."""
    found = in_turns(**_matching_forms(num_query, num_gallery, SHAPE))
    size = f"{num_query:,} x {num_gallery:,}"
    return [compare(name, size, {"library": measured}) for name, measured in found.items()]


def bench_matching(num_query: int, num_gallery: int, shape: tuple[int, ...] | None = None) -> dict:
    """`match_gallery` against the plain form, in bfloat16, and the faster of two bare products."""
    size = f"{num_query:,} x {num_gallery:,}"
    if shape is not None:
        size += ", {} x {} x {}".format(*shape)
    channels, height, width = shape or SHAPE
    forms = list(_matching_forms(num_query, num_gallery, shape or SHAPE).values())
    names = ("plain", "library", "bfloat16", "product", "convolution")
    found = in_turns(**dict(zip(names, [forms[0], *forms[3:]], strict=True)))
    seconds = {name: measured.seconds for name, measured in found.items()}
    gflop = 2e-9 * num_query * num_gallery * channels * (height * width) ** 2
    fastest = min(seconds["product"], seconds["convolution"])
    more = {
        "gflop_per_second": gflop / seconds["library"],
        "share_of_product_rate": fastest / seconds["library"],
        "product_gflop_per_second": gflop / seconds["product"],
        "convolution_gflop_per_second": gflop / seconds["convolution"],
        "bfloat16_ratio": seconds["library"] / seconds["bfloat16"],
        "bfloat16_difference": (found["bfloat16"].result - found["library"].result).abs().max(),
    }
    return compare("matching", size, found, 1e-4) | rounded(more)


def bench_network() -> list[dict]:
    """The laptop profile's network as the library runs it, and as torch does by default."""
    config = get_profile("laptop").config("qaconv")
    images = torch.rand(32, 3, config.height, config.width)
    last = ReidModel(config, 2).backbone
    first = copy.deepcopy(last).to(memory_format=torch.contiguous_format)

    def step(network: Backbone) -> Tensor:
        network.train().zero_grad()
        network(images)[:, 0].square().sum().backward()
        return cast(Tensor, next(network.neck.parameters()).grad)

    def extract(network: Backbone) -> Tensor:
        with torch.inference_mode():
            return network.eval()(images)

    # Extraction comes first: training changes the statistics of BN.
    found = in_turns(library=partial(extract, fold_norms(last)), plain=partial(extract, first))
    trained = in_turns(library=partial(step, last), plain=partial(step, first))
    return [
        compare("extraction", "32 images", found, 1e-3),
        compare("network, both ways", "32 images", trained, 1e-2, norm=True),
    ]


def on_one_thread(case: Callable[[], dict]) -> dict:
    """The row of a case that is run on a single thread."""
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        return case() | {"threads": 1}
    finally:
        torch.set_num_threads(threads)


def bench_machine(size: int = 4096, count: int = 10**8) -> dict:
    """What the machine can do at most: a copy of `count` numbers, a product of large matrices."""
    source, target = torch.ones(count), torch.empty(count)
    left, right, out = (torch.ones(size, size) for _ in range(3))
    product = partial(torch.mm, left, right, out=out)
    found = in_turns(copy=partial(target.copy_, source), product=product)
    rates = {
        "gigabytes_per_second": 2e-9 * source.nbytes / found["copy"].seconds,  # both ways
        "gflop_per_second": 2e-9 * size**3 / found["product"].seconds,
    }
    what = f"copy of {source.nbytes / 1e6:g} MB, product of {size} x {size}"
    return {"step": "machine", "size": what} | rounded(rates)


def bench_itself(size: int, tied: bool) -> dict:
    """A set against itself: half of the pairs are enough, with either head."""
    maps = unit_maps(size, 0, SHAPE)
    match = partial(match_gallery, QAConv(*SHAPE[1:], tied=tied).eval(), maps)
    found = in_turns(library=partial(match, maps), plain=partial(match, maps.clone()))
    label = f"{size:,}, {'tied' if tied else 'untied'}"
    share = found["library"].seconds / found["plain"].seconds
    return compare("set against itself", label, found, 1e-4) | rounded({"share": share})


def bench_training(classes: int, beside_plain: bool) -> dict:
    """Loss and gradient of a batch of 32 against a full class memory."""
    torch.manual_seed(0)
    criterion = QAConvLoss(classes, *SHAPE)
    memory, matcher = criterion.memory, criterion.matcher
    memory.features.copy_(unit_maps(classes, 1, SHAPE))
    memory.valid.fill_(True)
    maps, labels = unit_maps(32, 2, SHAPE), torch.arange(32)

    def gradient(loss: Callable[[Tensor], Tensor]) -> Tensor:
        # of the maps and of the FC weights, each divided by its largest entry
        own = maps.clone().requires_grad_()
        criterion.zero_grad()
        loss(own).backward()
        found = cast(tuple[Tensor, Tensor], (own.grad, matcher.fc.weight.grad))
        return torch.cat([(one / one.abs().max()).flatten() for one in found])

    forms = {"library": partial(gradient, lambda own: criterion(own, labels)[0])}
    if beside_plain:
        loss = partial(plain.qaconv_loss, matcher, memory=memory.features, labels=labels)
        forms["plain"] = partial(gradient, loss)
    return compare("training step", f"b=32, c={classes:,}", in_turns(**forms), 1e-5, norm=True)


def bench_tlift(num_query: int, num_gallery: int) -> dict:
    """TLift with 8 cameras and 85 minutes, as in DukeMTMC-reID; every fiftieth score is a tie."""
    rng = np.random.default_rng(0)
    similarity = rng.random((num_query, num_gallery), dtype=np.float32) ** 4
    similarity[rng.random(similarity.shape) < 0.02] = 0.5
    scene: list[Any] = [similarity]
    for count in (num_query, num_gallery):
        scene += [rng.integers(0, 8, count), rng.random(count) * 5100]
    found = in_turns(library=partial(tlift, *scene), plain=partial(plain.tlift, *scene))
    return compare("TLift", f"{num_query:,} x {num_gallery:,}", found)


def bench_evaluation(num_query: int, num_gallery: int) -> dict:
    """CMC, mAP and mINP of 750 people and 6 cameras; no scores tie, as the plain form assumes."""
    rng, sizes = np.random.default_rng(0), (num_query, num_gallery)
    scene: list[Any] = [rng.random(sizes)]  # in float32 some would tie
    for least, most in ((1, 751), (0, 6)):  # identities, cameras
        scene += [rng.integers(least, most, size) for size in sizes]

    def library() -> np.ndarray:
        found = evaluate_ranking(*scene)
        return np.hstack([found.cmc, found.mean_ap, found.mean_inp])

    found = in_turns(library=library, plain=lambda: np.hstack(plain.evaluate_ranking(*scene)))
    return compare("CMC, mAP, mINP", f"{num_query:,} x {num_gallery:,}", found)


def bench_reranking(images: int, beside_plain: bool) -> dict:
    """k-reciprocal re-ranking, a ninth of the images queries."""
    q, whole = images // 9, vector_distances(clustered_vectors(images))
    square = np.concatenate(
        [whole(start, min(start + 1000, images))[:, q:] for start in range(q, images, 1000)]
    )
    parts = whole(0, q)[:, q:].copy(), whole(0, q)[:, :q].copy(), square
    forms = {"library": partial(k_reciprocal_rerank, *parts)}
    if beside_plain:
        forms["plain"] = partial(plain.k_reciprocal_rerank, *parts)
    found = {name: measure(act) for name, act in forms.items()}
    return compare("re-ranking", f"N={images:,}", found, 1e-4) | {"images": images}


def bench_streaming(images: int) -> dict:
    """Re-ranking of vectors without a full distance matrix; an eighth are queries."""
    vectors, q = clustered_vectors(images), images // 8
    found = measure(lambda: rerank_streaming(vector_distances(vectors), q, images - q).shape)
    row = compare("re-ranking, streaming", f"N={images:,}", {"library": found})
    return row | {"images": images} | rounded({"matrix_megabytes": 4e-6 * images**2})


def bench_test(source: str, target: str) -> list[dict]:
    """The cost of each step of a test, and its mAP if it gives a ranking: one row per step.

    The target needs times.
    """
    model, data = load_model(checkpoint_path("qaconv", source)), load_dataset(target)
    tables, size = (data.query, data.gallery), f"{len(data.query):,} x {len(data.gallery):,}"
    rows: list[dict] = []

    def timed(step: str, act: Callable[[], Any], ranked: bool = True) -> Any:
        found = in_turns(library=act)
        rows.append({"source": source, "target": target} | compare(step, size, found))
        if ranked:
            rows[-1]["mean_ap"] = round(score(found["library"].result, *tables).mean_ap, 5)
        return found["library"].result

    def pairs(first: Tensor, second: Tensor, dtype: torch.dtype | None = None) -> np.ndarray:
        return match_gallery(matcher_of(model), first, second, dtype=dtype).numpy(force=True)

    queries, gallery = timed("extraction", lambda: [model.extract(t) for t in tables], False)
    half = timed("matching, bfloat16", partial(pairs, queries, gallery, torch.bfloat16))
    similarity = {"query_gallery": timed("matching", partial(pairs, queries, gallery))}
    rows[1] |= rounded({"score_difference": np.abs(half - similarity["query_gallery"]).max()})
    for name, maps in (("query", queries), ("gallery", gallery)):
        act = partial(pairs, maps, maps)
        similarity[f"{name}_{name}"] = timed(f"matching, {name} itself", act, False)
    reranked = timed("re-ranking", partial(rerank, similarity, "qaconv"))
    timed("TLift", partial(tlift, reranked, *times(data)))
    timed("scores", partial(score, reranked, *tables), False)
    return rows


def bench_shortlist(source: str, target: str, distractors: int = 0) -> list[dict]:
    """Shortlists of several lengths, made from pooled maps: a row each, then the whole gallery.

    What is on the shortlist comes first, ordered by QAConv; the rest follows in the order of the
    pooled vectors. `distractors` is how many maps without a person (`mixed_maps`) are added.
    """
    model, data = load_model(checkpoint_path("qaconv", source)), load_dataset(target)
    matcher = matcher_of(model)
    queries, gallery = model.extract(data.query), model.extract(data.gallery)
    labels = data.gallery[["identity", "camera"]]
    poolings: dict[str, Callable[[Tensor], Tensor]] = {"four stripes": pool_maps}
    if distractors:
        others = [name for name in ("mini-cuhk03", "mini-msmt17", source) if name != target]
        images = pd.concat([load_dataset(name).gallery for name in others])
        gallery = torch.cat([gallery, mixed_maps(model.extract(images), distractors)])
        nobody = pd.DataFrame({"identity": np.zeros(distractors, int), "camera": -1})
        labels = pd.concat([labels, nobody])
    else:
        poolings["one average"] = lambda maps: F.normalize(maps.float().mean(dim=(2, 3)), dim=1)
    rows = []

    def note(pooling: str, length: int, seconds: float, similarity: Tensor) -> None:
        found = score(similarity.numpy(force=True), data.query, labels)
        rows.append(
            {"source": source, "target": target, "gallery": len(gallery), "queries": len(queries)}
            | {"pooling": pooling, "length": length, **rounded({"seconds": seconds})}
            | {"rank1": round(found.rank(1), 5), "mean_ap": round(found.mean_ap, 5)}
        )

    for pooling, pool in poolings.items():
        vectors, own = pool(gallery), pool(queries)
        pooled = (own @ vectors.T).double()
        for length in (length for length in LENGTHS if length < len(gallery)):
            first = measure(partial(shortlist, own, vectors, length))
            second = measure(partial(match_shortlist, matcher, queries, gallery, first.result))
            # Pooled scores lie in [-1, 1]; what is on the list comes before them.
            ranking = pooled.scatter(1, first.result, second.result.double() + 1000)
            note(pooling, length, first.seconds + second.seconds, ranking)
    whole = measure(partial(match_gallery, matcher, queries, gallery))
    note("none", len(gallery), whole.seconds, whole.result)
    return rows


def mixed_maps(maps: Tensor, count: int) -> Tensor:
    """Maps of people who do not exist: upper rows of one, lower rows of another, half mirrored.

    They vary like real maps at every location. `maps` (n, d, h, w) must be of images not queried.
    """
    generator = torch.Generator().manual_seed(0)
    upper, lower = torch.randint(len(maps), (2, count), generator=generator)
    mirrored = torch.rand(count, generator=generator) < 0.5
    middle = maps.shape[2] // 2
    mixed = torch.cat([maps[upper, :, :middle], maps[lower, :, middle:]], dim=2)
    mixed[mirrored] = mixed[mirrored].flip(3)
    return mixed


#: Cases by name, in the order they are run, and what gives their rows.
CASES: dict[str, list[Callable[[], dict | list[dict]]]] = {
    "machine": [bench_machine],
    "matching": [partial(bench_matching, 64, 1000), partial(bench_matching, 128, 2000)],
    "threads": [partial(on_one_thread, partial(bench_matching, 64, 1000))],
    "small": [partial(bench_matching, 500, 2000, shape=(64, 8, 4))],
    "network": [bench_network],
    "optimisations": [partial(bench_optimisations, 64, 1000)],
    "itself": [partial(bench_itself, 600, tied) for tied in (True, False)],
    "training": [partial(bench_training, 751, True), partial(bench_training, 1502, False)],
    "tlift": [partial(bench_tlift, 2228, 17_661)],
    "evaluation": [partial(bench_evaluation, 3368, 15_913)],
    "reranking": [partial(bench_reranking, n, n < 40_000) for n in (5000, 10_000, 20_000, 40_000)],
    # The last is the size of MSMT17's test set.
    "streaming": [partial(bench_streaming, n) for n in (10_000, 20_000, 40_000, 93_820)],
    "test": [partial(bench_test, "mini-market", "mini-duke")],
    "shortlist": [
        partial(bench_shortlist, "mini-market", "mini-duke"),
        partial(bench_shortlist, "mini-duke", "mini-market"),
        partial(bench_shortlist, "mini-market", "mini-duke", 100_000),
    ],
}


def run_bench(names: list[str], report: Callable[[str], None]) -> None:
    """Run cases (all if none is named) on the CPU; write one record each, in `results/bench`."""
    if unknown := sorted(set(names) - set(CASES)):
        raise ValueError(f"unknown case {unknown[0]!r}; known are {', '.join(CASES)}")
    for name in names or CASES:
        rows = []
        for case in CASES[name]:
            found = case()
            for row in found if isinstance(found, list) else [found]:
                report(", ".join(f"{key} {value}" for key, value in row.items()))
                rows.append(row)
        about: dict = {"experiment": "bench", "loss": "any", "source": "any", "profile": "any"}
        about |= {"seed": 0, "case": name, "rows": rows} | records.provenance("cpu")
        records.write_record("bench", name, about)
