"""Tables of the book and the README, drawn from records."""

from __future__ import annotations

import numpy as np

from qaconv_lib.records import read_records

STAGES = ("alone", "+TLift", "+RR", "+RR+TLift")


def headline_table(profile: str = "laptop") -> str:
    """Markdown table of the cross-domain records, in the form of the paper's Table 2."""
    records = [r for r in read_records("cross_domain") if r["profile"] == profile]
    if not records:
        return f"No cross-domain records at the {profile} profile yet."
    directions = sorted({(r["source"], r["target"]) for r in records}, reverse=True)
    rows = [
        "| method | " + " | ".join(f"{s} → {t}<br>rank-1 / mAP" for s, t in directions) + " |",
        "|---|" + "---|" * len(directions),
    ]
    for loss, label in (("softmax", "softmax, pooled"), ("qaconv", "QAConv")):
        for stage in STAGES:
            cells = []
            for direction in directions:
                found = [
                    r["stages"][stage]
                    for r in records
                    if (r["loss"], r["source"], r["target"]) == (loss, *direction)
                    and stage in r["stages"]
                ]
                cells.append(_percent(found))
            name = label if stage == "alone" else f"{label}{stage.replace('+', ' + ')}"
            rows.append(f"| {name} | " + " | ".join(cells) + " |")
    seeds = sorted({r["seed"] for r in records})
    devices = ", ".join(sorted({r["device"] for r in records}))
    rows += ["", f"In percent, seed {', '.join(map(str, seeds))}; {profile} profile, on {devices}."]
    return "\n".join(rows)


def _percent(found: list[dict]) -> str:
    if not found:
        return "–"
    rank, mean_ap = (100 * np.mean([f[key] for f in found]) for key in ("rank1", "mean_ap"))
    return f"{rank:.1f} / {mean_ap:.1f}"
