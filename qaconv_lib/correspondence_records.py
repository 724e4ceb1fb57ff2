"""How good the correspondences of a trained model are on another domain: pairs and record (ch. 11).

Every query of a dataset makes a *true pair* with a random gallery image of the same person, a
*hard negative* with the image of another person that the model finds most similar, and a pair
with a random image of *another person*; all from another camera than the query. The same pairs are
then matched with other features.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from qaconv_lib.backbones import Backbone, make_backbone
from qaconv_lib.correspondence import (
    BODY_PARTS,
    LEAST,
    SHOWN,
    cell_parts,
    changed_cells,
    hidden_share,
    match_table,
)
from qaconv_lib.datasets import ReidDataset, load_dataset, load_part_map
from qaconv_lib.experiments import DIRECTIONS
from qaconv_lib.models import ReidModel, default_device, load_model
from qaconv_lib.profiles import get_profile
from qaconv_lib.records import provenance, read_records, write_record
from qaconv_lib.runs import Run
from qaconv_lib.statistics import paired_bootstrap
from qaconv_lib.synthetic.changes import CHANGES
from qaconv_lib.synthetic.miniatures import draw_image, plan
from qaconv_lib.synthetic.render import Drawing
from qaconv_lib.transforms import ReidImages, to_tensor

PAIRS = ("true pairs", "hard negatives", "other people")
#: Shares of the matches that are kept, those of the highest similarity first.
KEPT = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
_BODY_LABELS = [SHOWN.index(part) for part in BODY_PARTS]
_OTHER_LEAST = 0.5  # a stricter `LEAST`, to see whether the choice matters
_FOLDER = "correspondence"
_REPEATS = 1000  # of the bootstrap
_SEED = 0  # of the choice of pairs
_CHANGED = 100  # true pairs that are drawn again with a change
_VIEWPOINTS = ((0, 45), (45, 90), (90, 135), (135, 180))  # degrees between the walking directions
_HIDDEN = ((0, 0.01), (0.01, 0.1), (0.1, 1))
_ALIGNED = ((0, 1 / 3), (1 / 3, 2 / 3), (2 / 3, 1))

Maps = Callable[[Tensor], Tensor]  # images (b, 3, H, W) to maps (b, d, h, w)


class Scene(NamedTuple):
    """A dataset's test images, and the gallery image that each query is paired with, by kind."""

    dataset: ReidDataset
    partners: dict[str, np.ndarray]  # (q,) rows of the gallery


def feature_maps(qaconv: ReidModel, softmax: ReidModel) -> dict[str, Maps]:
    """The features that are compared, all on the grid of QAConv's maps and of unit length.

    Args:
        qaconv: a model trained with QAConv.
        softmax: one trained with a pooled loss on the same images.

    Returns:
        By name. "ImageNet" is QAConv's network before any training on people, without a neck.
        "softmax, same layer" is the other model's network cut where QAConv's is, "softmax, last
        layer" all of it, its coarser map enlarged. "colour" is the mean colour of a location.
    """
    config = qaconv.config
    height, width = qaconv.backbone.map_size(config.height, config.width)

    def on_grid(maps: Tensor) -> Tensor:
        if maps.shape[-2:] != (height, width):
            maps = F.interpolate(maps, (height, width), mode="bilinear")
        return F.normalize(maps, dim=1)

    def cut(pretrained: bool) -> Backbone:
        return make_backbone(
            config.backbone,
            pretrained=pretrained,
            final_layer=config.final_layer,
            neck_channels=None,
            pixels=config.pixels,
        ).eval()

    imagenet, same_layer = cut(True), cut(False)
    trained = softmax.backbone.trunk.state_dict()
    same_layer.trunk.load_state_dict({key: trained[key] for key in same_layer.trunk.state_dict()})
    return {
        "QAConv": qaconv.backbone,
        "ImageNet": imagenet,
        "softmax, same layer": same_layer,
        "softmax, last layer": lambda images: on_grid(softmax.backbone(images)),
        "colour": lambda images: F.normalize(
            F.adaptive_avg_pool2d(images, (height, width)) - 0.5, dim=1
        ),
    }


def choose_pairs(scores: np.ndarray, dataset: ReidDataset, seed: int = _SEED) -> Scene:
    """Pair every query as this module's head says.

    Args:
        scores: (q, g) the model's similarities.
        dataset: every query needs a match under another camera.
        seed: of the random choices.
    """
    query, gallery = dataset.query, dataset.gallery
    identity, camera = (
        query[name].to_numpy()[:, None] == gallery[name].to_numpy()
        for name in ("identity", "camera")
    )
    rng = np.random.default_rng(seed)
    strangers = ~identity & ~camera
    return Scene(
        dataset,
        {
            "true pairs": _draw(identity & ~camera, rng),
            "hard negatives": np.where(strangers, scores, -np.inf).argmax(axis=1),
            "other people": _draw(strangers, rng),
        },
    )


def _draw(allowed: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.array([rng.choice(np.flatnonzero(row)) for row in allowed])


def pair_traits(scene: Scene, name: str) -> dict[str, pd.DataFrame]:
    """What is known of each pair, by kind: `person` (the query's), `viewpoint` (degrees between the
    walking directions as the two cameras see them) and `hidden` (the larger share of pixels that
    show other people or things in the way)."""
    headings = plan(name).set_index("path")["heading"]
    tables = scene.dataset.query, scene.dataset.gallery
    heading, hidden = (
        [np.array([f(path) for path in table["path"]]) for table in tables]
        for f in (
            lambda path: headings[path.relative_to(scene.dataset.root).as_posix()],
            lambda path: hidden_share(load_part_map(path)),
        )
    )
    return {
        kind: pd.DataFrame(
            {
                "person": scene.dataset.query["identity"].to_numpy(),
                "viewpoint": _degrees(heading[0] - heading[1][partner]),
                "hidden": np.maximum(hidden[0], hidden[1][partner]),
            }
        )
        for kind, partner in scene.partners.items()
    }


def _degrees(turn: np.ndarray) -> np.ndarray:
    """Size of a turn in radians, 0 to 180 degrees."""
    return np.degrees(np.abs(np.angle(np.exp(1j * turn))))


def correspondence_record(
    run: Run, target: str, *, device: str | None = None, progress: bool = False
) -> dict:
    """Measure the matches of a trained model on a dataset of another domain; write the record.

    Args:
        run: a run with QAConv whose model is there, and so is that of the same run with softmax.
        target: a miniature; others have no part maps.
        device: e.g. "cpu" or "cuda"; the GPU if there is one.
        progress: show progress bars.

    Returns:
        The record. `rows` has for each kind of features and of pairs the share of right matches
        among those whose part the gallery image shows, with its interval over people, for all
        and in groups; `differences` that of QAConv minus the others; `reliability` the share by
        similarity, among all matches from the person; `ends` where matches from the person and
        from elsewhere end; `changes` where similarities fall when one thing of a person changes.

    Raises:
        FileNotFoundError: a model or a part map is not there.
        ValueError: the run is not one with QAConv.
    """
    if run.loss != "qaconv":
        raise ValueError(f"correspondence is measured of runs with qaconv, got {run.loss!r}")
    start, device = time.perf_counter(), device or str(default_device())
    model = load_model(run.checkpoint(), device)
    pooled = load_model(Run("softmax", run.source, run.profile, run.seed).checkpoint(), device)
    dataset = load_dataset(target)
    maps = [model.extract(part, progress=progress) for part in (dataset.query, dataset.gallery)]
    scores = model.scores(*maps, progress=progress).numpy(force=True)
    scene = choose_pairs(scores, dataset)
    networks = feature_maps(model, pooled)
    tables = _tables(networks, model, scene, target)
    record = {
        "experiment": _FOLDER,
        **run.about,
        "target": target,
        "protocol": {
            "queries": len(dataset.query),
            "people": int(dataset.query["identity"].nunique()),
            "locations": int(np.prod(maps[0].shape[2:])),
            "least": LEAST,
            "seed": _SEED,
            "repeats": _REPEATS,
        },
        "rows": list(_rows(tables)),
        "differences": list(_differences(tables)),
        "reliability": list(_reliability(tables)),
        "ends": list(_ends(tables)),
        "changes": list(_changes(networks, model, scene, target)),
        "seconds": round(time.perf_counter() - start, 1),
        **provenance(device),
    }
    write_record(_FOLDER, f"{run.name}-on-{target}", record)
    return record


Tables = dict[str, dict[str, pd.DataFrame]]  # by features and kind of pairs


@torch.no_grad()
def _tables(networks: dict[str, Maps], model: ReidModel, scene: Scene, name: str) -> Tables:
    """The matches of all pairs, with what is known of each pair."""
    query, gallery = scene.dataset.query, scene.dataset.gallery
    rows = np.unique(np.concatenate(list(scene.partners.values())))
    used = gallery.iloc[rows]
    grid = model.backbone.map_size(model.config.height, model.config.width)
    parts = {
        least: [
            np.stack([cell_parts(load_part_map(path), *grid, least) for path in table["path"]])
            for table in (query, used)
        ]
        for least in (LEAST, _OTHER_LEAST)
    }
    traits, found = pair_traits(scene, name), {}
    for features, network in networks.items():
        maps = [_maps(network, table, model) for table in (query, used)]
        found[features] = {}
        for kind, partner in scene.partners.items():
            place = np.searchsorted(rows, partner)
            both = maps[0], maps[1][place]
            table = match_table(*both, parts[LEAST][0], parts[LEAST][1][place])
            other = match_table(*both, parts[_OTHER_LEAST][0], parts[_OTHER_LEAST][1][place])
            pairs = table["pair"].to_numpy()
            for trait, values in traits[kind].items():
                table[trait] = values.to_numpy()[pairs]
            shown = table[table["visible"]].groupby("pair")["same_place"].mean()
            table["aligned"] = shown.reindex(pairs).to_numpy()
            table["strict_visible"], table["strict_right"] = other["visible"], other["right"]
            found[features][kind] = table
    return found


def _maps(network: Maps, table: pd.DataFrame, model: ReidModel) -> Tensor:
    config, device = model.config, next(model.parameters()).device
    images = ReidImages(table, config.height, config.width, keep_in_memory=False)
    return torch.cat([network(batch.to(device)).cpu() for batch, _ in DataLoader(images, 64)])


def _rows(tables: Tables) -> Iterator[dict]:
    for features, kinds in tables.items():
        for kind, table in kinds.items():
            about = {"features": features, "pairs": kind}
            for by, value, part in _groups(table[table["visible"]]):
                similarity = _round(part["similarity"].mean())
                row = about | {"by": by, "value": value}
                yield row | _share(part, "right") | {"similarity": similarity}
                if features == "QAConv" and by not in ("kept", "mutual"):
                    for column, name in (("same_place", "same place"), ("chance", "chance")):
                        yield row | {"features": name} | _share(part, column)
            strict = table[table["strict_visible"]]
            yield about | {"by": "least", "value": _OTHER_LEAST} | _share(strict, "strict_right")


def _groups(table: pd.DataFrame) -> Iterator[tuple[str, str | float, pd.DataFrame]]:
    yield "all", "", table
    for part in BODY_PARTS:
        yield "part", part, table[table["part"] == part]
    for trait, bounds in (("viewpoint", _VIEWPOINTS), ("hidden", _HIDDEN), ("aligned", _ALIGNED)):
        for low, high in bounds:
            inside = (table[trait] >= low) & ((table[trait] < high) | (high == bounds[-1][1]))
            yield trait, low, table[inside]
    yield "mutual", "yes", table[table["mutual"]]
    yield "mutual", "no", table[~table["mutual"]]
    ordered = table.sort_values("similarity", ascending=False, kind="stable")
    for share in KEPT:
        yield "kept", share, ordered.head(round(share * len(ordered)))


def _share(table: pd.DataFrame, column: str) -> dict:
    """A share among matches, its 95 % interval over people, and the number of matches."""
    if not len(table):
        return {"share": None, "low": None, "high": None, "matches": 0}
    found = paired_bootstrap(table[column].astype(float), table["person"], repeats=_REPEATS)
    named = zip(("share", "low", "high"), found, strict=True)
    return {name: _round(value) for name, value in named} | {"matches": len(table)}


def _differences(tables: Tables) -> Iterator[dict]:
    for kind, ours in tables["QAConv"].items():
        ours = ours[ours["visible"]]
        others = {name: kinds[kind] for name, kinds in tables.items() if name != "QAConv"}
        columns = {name: table["right"].loc[ours.index] for name, table in others.items()}
        columns |= {"same place": ours["same_place"], "chance": ours["chance"]}
        for name, column in columns.items():
            change = ours["right"].astype(float) - column.astype(float)
            yield {"pairs": kind, "over": name} | _share(ours.assign(change=change), "change")


def _reliability(tables: Tables) -> Iterator[dict]:
    """Right matches by similarity, in steps of 0.1; a part that is not visible makes it wrong."""
    for features, kinds in tables.items():
        for kind, table in kinds.items():
            table = table[table["on_body"]]
            step = np.floor(table["similarity"] * 10).clip(-10, 9)
            for value, part in table.groupby(step):
                row = {"features": features, "pairs": kind, "from": _round(value / 10)}
                yield (
                    row | _share(part, "right") | {"similarity": _round(part["similarity"].mean())}
                )


def _ends(tables: Tables) -> Iterator[dict]:
    for features, kinds in tables.items():
        for kind, table in kinds.items():
            body = table["found"].isin(BODY_PARTS)
            ends = {
                "same part": table["right"],
                "another part": body & ~table["right"],
                "background": table["found"] == "background",
                "others": ~body & (table["found"] != "background"),
            }
            starts = {"person": table["on_body"], "background": table["part"] == "background"}
            for start, chosen in starts.items():
                shares = {name: _round(column[chosen].mean()) for name, column in ends.items()}
                row = {"features": features, "pairs": kind, "start": start}
                yield row | shares | {"matches": int(chosen.sum())}


@torch.no_grad()
def _changes(
    networks: dict[str, Maps], model: ReidModel, scene: Scene, name: str
) -> Iterator[dict]:
    """Where similarities fall when the gallery image of a true pair is drawn with one change.

    `hit` says how often, of the locations that show the person, the one whose best similarity
    falls most has changed; `chance` which share of these locations has changed.
    """
    rng = np.random.default_rng(_SEED)
    chosen = np.sort(rng.permutation(len(scene.dataset.query))[:_CHANGED])
    query = scene.dataset.query.iloc[chosen]
    partners = scene.dataset.gallery.iloc[scene.partners["true pairs"][chosen]]
    paths = [path.relative_to(scene.dataset.root).as_posix() for path in partners["path"]]
    before = [draw_image(name, path) for path in paths]
    grid = model.backbone.map_size(model.config.height, model.config.width)
    shows = np.stack([np.isin(cell_parts(d.parts, *grid), _BODY_LABELS) for d in before])
    query_maps = {features: _maps(network, query, model) for features, network in networks.items()}
    for change, make in CHANGES.items():
        after = [draw_image(name, path, make) for path in paths]
        changed = np.stack(
            [changed_cells(a.image, b.image, *grid) for a, b in zip(before, after, strict=True)]
        )
        changed &= shows
        usable = changed.any(axis=1) & (shows & ~changed).any(axis=1)
        for features, network in networks.items():
            best = [
                _best_of_gallery(query_maps[features], _drawn(network, drawings, model))
                for drawings in (before, after)
            ]
            fall = best[0] - best[1]  # (n, h*w)
            where = np.where(shows, fall, -np.inf).argmax(axis=1)
            table = pd.DataFrame(
                {
                    "person": query["identity"].to_numpy(),
                    "hit": changed[np.arange(len(changed)), where],
                    "chance": changed.sum(axis=1) / np.maximum(shows.sum(axis=1), 1),
                    "fall": [
                        f[c].mean() if c.any() else 0.0 for f, c in zip(fall, changed, strict=True)
                    ],
                    "elsewhere": [f[~c].mean() for f, c in zip(fall, changed, strict=True)],
                }
            )[usable]
            row = {"features": features, "change": change} | _share(table, "hit")
            means = {
                column: _round(table[column].mean()) for column in ("chance", "fall", "elsewhere")
            }
            yield row | means


def _best_of_gallery(query_maps: Tensor, gallery_maps: Tensor) -> np.ndarray:
    """Best similarity of each gallery location of each pair, (n, h*w)."""
    table = query_maps.flatten(2).transpose(1, 2) @ gallery_maps.flatten(2)
    return table.amax(dim=1).double().numpy(force=True)


def _drawn(network: Maps, drawings: list[Drawing], model: ReidModel) -> Tensor:
    config, device = model.config, next(model.parameters()).device
    images = torch.stack(
        [to_tensor(Image.fromarray(d.image), config.height, config.width) for d in drawings]
    )
    return network(images.float().to(device) / 255).cpu()


def _round(value: float) -> float:
    return float(f"{value:.5g}")


def find_correspondence(source: str, target: str, profile: str = "laptop") -> dict | None:
    """The record of `correspondence_record` for a source and a target, if there is one."""
    for record in read_records(_FOLDER):
        if (record["source"], record["target"], record["profile"]) == (source, target, profile):
            return record
    return None


def run_correspondence(
    profile: str = "laptop",
    device: str | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> list[dict]:
    """Measure both directions between Market and Duke that have no record yet (seed 0)."""
    records = []
    for source, target in DIRECTIONS:
        names = [get_profile(profile).datasets[role] for role in (source, target)]
        record = find_correspondence(*names, profile)
        if record is None:
            record = correspondence_record(
                Run("qaconv", names[0], profile), names[1], device=device
            )
            report(f"{names[0]} on {names[1]}: {record['seconds']} s")
        records.append(record)
    return records
