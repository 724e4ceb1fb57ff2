"""Mini-batches with several images of each identity (appendix C).

"pk" draws the classes of a batch at random; "graph" takes a class and those most like it to the
model as it is: Liao and Shao, "Graph Sampling Based Deep Metric Learning" (CVPR 2022).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Sampler

from qaconv_lib._processes import gather
from qaconv_lib.models import ReidModel
from qaconv_lib.training import Trainer

#: Names of samplers. "shuffle" takes all images in random order.
SAMPLERS = ("shuffle", "pk", "graph")
# Numbers of the streams that are drawn from one seed.
_CLASSES, _IMAGES, _CHOICE = range(3)


def nearest_classes(similarity: Tensor, count: int) -> Tensor:
    """The graph: for each class the `count` classes most like it, nearest first, (c, count).

    Row i of `similarity` (c, c) compares class i with all; the diagonal does not count. Of two
    classes that are equally alike the lower number comes first.
    """
    if similarity.dim() != 2 or similarity.shape[0] != similarity.shape[1]:
        raise ValueError(f"similarity must have shape (c, c), got {tuple(similarity.shape)}")
    if not 1 <= count < len(similarity):
        raise ValueError(f"count must lie in 1..{len(similarity) - 1}, got {count}")
    if similarity.isnan().any():
        raise ValueError("similarity contains NaN")
    size = len(similarity)
    order = similarity.argsort(dim=1, descending=True, stable=True)
    own = torch.arange(size, device=order.device)[:, None]
    return order[order != own].view(size, size - 1)[:, :count]


class IdentityBatches(Sampler[list[int]]):
    """Random batches of `p` classes with `k` images each, the PK sampler of Hermans et al. (2017).

    Classes come in rounds: each is drawn once before any is drawn again, but for those that do not
    fill the last batch of a round. So do the images of a class within an epoch. A class with fewer
    than `k` images gives some of them twice. Everything is drawn from `(seed, epoch)`. `labels` go
    from 0 to c - 1; an epoch has `batches`, or None for as many as the images fill.
    """

    def __init__(
        self, labels: Sequence[int], classes: int, images: int, *,
        seed: int = 0, batches: int | None = None,
    ):  # fmt: skip
        self.members = [np.flatnonzero(np.equal(labels, c)) for c in range(max(labels) + 1)]
        if len(self.members) < classes:
            raise ValueError(
                f"a batch needs {classes} identities, and there are {len(self.members)}; lower "
                "batch_size or raise images_per_identity"
            )
        self.classes, self.images, self.seed, self.epoch = classes, images, seed, 0
        self._length = len(labels) // (classes * images) if batches is None else batches
        if self._length < 1:
            raise ValueError(f"{len(labels)} images do not fill a batch of {classes * images}")

    def __len__(self) -> int:
        return self._length

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.classes} classes, {self.images} images each)"

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that is drawn next, from 0."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        rng = self._generator(_IMAGES, self.epoch)
        waiting: list[list[int]] = [[] for _ in self.members]
        for classes in self._class_batches():
            yield [int(i) for c in classes for i in self._take(waiting, c, rng)]

    def _class_batches(self) -> list[np.ndarray]:
        return self._drawn(self.classes)

    def _drawn(self, size: int) -> list[np.ndarray]:
        """So many classes for each batch of the epoch; rounds go on from epoch to epoch."""
        count, found = len(self.members), []
        for batch in range(self.epoch * len(self), (self.epoch + 1) * len(self)):
            number, place = divmod(batch, count // size)
            order = self._generator(_CLASSES, number).permutation(count)
            found.append(order[place * size : (place + 1) * size])
        return found

    def _take(self, waiting: list[list[int]], c: int, rng: np.random.Generator) -> list[int]:
        if len(waiting[c]) < self.images:
            own = self.members[c]
            waiting[c] = list(rng.permutation(own)) * -(-self.images // len(own))
        taken, waiting[c] = waiting[c][: self.images], waiting[c][self.images :]
        return taken

    def _generator(self, stream: int, number: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, stream, number))


class GraphBatches(IdentityBatches):
    """Batches of a class and its nearest ones, `k` images each: the graph sampler.

    When an epoch begins, one image of each class is drawn, and `similarities` gets their places, in
    the order of the classes, and returns how alike they are, (c, c). Every class in turn is the
    anchor of a batch: the anchor comes first, then its `p - 1` nearest classes. (The authors' epoch
    has one batch for each class; here epochs are as long as the other samplers'.)
    """

    neighbours: Tensor | None = None  # the graph that was used last, (c, p - 1)

    def __init__(
        self, labels: Sequence[int], classes: int, images: int,
        similarities: Callable[[list[int]], Tensor], **more: Any,
    ):  # fmt: skip
        super().__init__(labels, classes, images, **more)
        self.similarities = similarities

    def _class_batches(self) -> list[np.ndarray]:
        rng = self._generator(_CHOICE, self.epoch)
        chosen = [int(rng.choice(own)) for own in self.members]
        self.neighbours = nearest_classes(self.similarities(chosen).cpu(), self.classes - 1)
        nearest = self.neighbours.numpy()
        return [np.append(anchor, nearest[anchor]) for anchor in self._drawn(1)]


def class_similarities(model: ReidModel, table: pd.DataFrame) -> Tensor:
    """How alike a model finds the images of a table, (n, n); all processes get the first's."""
    maps = model.extract(table)
    scores = model.similarity(maps, maps)
    return gather(scores[None], same_length=True)[0][0]


def sampler_by_name(
    name: str, images_per_identity: int = 4
) -> Callable[[Trainer], IdentityBatches] | None:
    """What `Trainer` takes as its sampler: None for "shuffle", else a function of the trainer."""

    def make(trainer: Trainer) -> IdentityBatches:
        size, labels = trainer.config.batch_size, trainer.images.labels
        check_sampling(name, size, images_per_identity)
        sizes = size // images_per_identity, images_per_identity
        if name == "pk":
            return IdentityBatches(labels, *sizes, seed=trainer.config.seed)

        def similarities(chosen: list[int]) -> Tensor:
            return class_similarities(trainer.model, trainer.table.iloc[chosen])

        return GraphBatches(labels, *sizes, similarities, seed=trainer.config.seed)

    return None if name == "shuffle" else make


def check_sampling(name: str, batch_size: int, images_per_identity: int) -> None:
    """Raise ValueError unless a batch can be drawn like this."""
    if name not in SAMPLERS:
        raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)}, got {name!r}")
    if not isinstance(images_per_identity, int) or images_per_identity < 1:
        raise ValueError(
            f"images_per_identity must be a whole number from 1, got {images_per_identity!r}"
        )
    whole = batch_size % images_per_identity == 0 and batch_size >= 2 * images_per_identity
    if name != "shuffle" and not whole:
        raise ValueError(
            f"images_per_identity ({images_per_identity}) must divide batch_size ({batch_size}) "
            "into at least two identities"
        )
