"""Write the road map at the start of each chapter: where readers are, and what comes next.

python book/tools/road_map.py
"""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import refresh

PARTS = {  # the parts of _toc.yml: a word or two for each chapter, in order
    "Matching images": ("task", "feature maps", "kernels", "score"),
    "Learning to match": ("memory", "loss", "training"),
    "Out of the domain": ("evaluation", "re-ranking", "temporal lifting"),
    "The evidence": ("matches", "losses", "ablations", "results"),
    "Appendices": ("speed", "photographs", "graph sampling"),
}
START, END = '<div class="road-map">\n\n', "\n\n</div>"


def chapters() -> list[Path]:
    return [p for p in sorted(refresh.BOOK.glob("*.ipynb")) if re.match(r"\d\d_|[a-c]_", p.name)]


def road_map(current: Path) -> str:
    """The current chapter's part, with the current stop in bold, among links to the other parts."""
    paths = iter(path.name for path in chapters())
    lines = []
    for part, words in PARTS.items():
        names = [next(paths) for _ in words]
        if current.name not in names:
            lines.append(f"[{part}]({names[0]})")
            continue
        stops = []
        for word, name in zip(words, names, strict=True):
            label = f"{name.split('_')[0].lstrip('0').upper()} {word}"
            stops.append(f"**{label}**" if name == current.name else f"[{label}]({name})")
        lines.append(f"*{part}:* " + " → ".join(stops))
    return START + " |\n".join(lines) + END


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
