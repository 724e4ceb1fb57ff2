"""Write the road map at the start of each chapter: where readers are, and what comes next.

python book/tools/road_map.py
"""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import refresh

PARTS = (  # the parts of _toc.yml: a word or two for each chapter, in order
    ("task", "feature maps", "kernels", "score"),
    ("memory", "loss", "training"),
    ("evaluation", "re-ranking", "temporal lifting"),
    ("matches", "losses", "ablations", "results"),
    ("speed", "photographs", "graph sampling"),
)
START, END = '<div class="road-map">\n\n', "\n\n</div>"


def chapters() -> list[Path]:
    return [p for p in sorted(refresh.BOOK.glob("*.ipynb")) if re.match(r"\d\d_|[a-c]_", p.name)]


def road_map(current: Path) -> str:
    """The map with the current chapter in bold; the others are links."""
    paths = iter(chapters())
    parts = []
    for words in PARTS:
        stops = []
        for word in words:
            path = next(paths)
            label = f"{path.name.split('_')[0].lstrip('0').upper()} {word}"
            stops.append(f"**{label}**" if path.name == current.name else f"[{label}]({path.name})")
        parts.append((" · " if words is PARTS[-1] else " → ").join(stops))
    return START + "\n| ".join(parts) + END


def main() -> None:
    for path in chapters():
        notebook = refresh.read(path)
        first = notebook.cells[0]
        head, _, rest = first.source.partition("\n\n## ")
        head = head.partition(f"\n\n{START}")[0]
        first.source = f"{head}\n\n{road_map(path)}\n\n## {rest}"
        refresh.write(path, nbformat.writes(refresh.normalise(notebook)) + "\n")


if __name__ == "__main__":
    main()
