"""Print the claims of the page "The paper's claims": verdicts, intervals drawn, numbers folded."""

from __future__ import annotations

from collections import Counter
from html import escape

from qaconv_lib.experiments.claims import CLAIMS, SUGGESTIVE, Claim, verdict
from qaconv_lib.experiments.comparisons import Comparison
from qaconv_lib.experiments.records import read_records
from qaconv_lib.experiments.statistics import Difference
from qaconv_lib.experiments.tables import devices_of

TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)  # the longest that fits is marked beside zero
KINDS = {"holds here": "yes", "holds in part": "part", "does not hold here": "no"}


def badge(words: str) -> str:
    kind = KINDS.get(words.removesuffix(SUGGESTIVE), "open")
    return f'<span class="badge {kind}">{words}</span>'


def forest(claim: Claim, found: list[Difference]) -> str:
    """Intervals around their means, with the margin and a scale, in percent of the width."""
    margin = claim.margin or 0.0
    low = min(0.0, -margin, *(d.low for d in found))
    high = max(0.0, margin, *(d.high for d in found))
    longest = max(low, high, key=abs)
    fitting = [step for step in TICKS if step <= abs(longest)] or TICKS[:1]
    tick = fitting[-1] if longest > 0 else -fitting[-1]
    low, high = low - 0.04 * (high - low), high + 0.04 * (high - low)

    def place(value: float) -> str:
        return f"{100 * (value - low) / (high - low):.1f}%"

    def span(start: float, end: float) -> str:
        return f"left: {place(start)}; width: {100 * (end - start) / (high - low):.1f}%"

    band = f'<s style="{span(-margin, high if claim.one_sided else margin)}"></s>'
    lines = [band if margin else "", *(f'<u style="left: {place(x)}"></u>' for x in (0, tick))]
    for d in found:
        dot = f'<b style="left: {place(d.mean)}"></b>'
        lines.append(f'<div><i style="{span(d.low, d.high)}"></i>{dot}</div>')
    labels = ((0, "0"), (tick, f"{tick:+g}"))
    scale = (f'<small style="left: {place(x)}">{text}</small>' for x, text in labels)
    lines.append(f"<div>{''.join(scale)}</div>")
    return f'<div class="forest" aria-hidden="true">{"".join(lines)}</div>'


def numbers(found: list[Comparison]) -> str:
    rows = "".join(
        f"<tr><td>{escape(label)}</td><td>{d.mean:+.1f}</td>"
        f"<td>{'–' if d.low == d.high else f'{d.low:+.1f} to {d.high:+.1f}'}</td></tr>"
        for label, d in found
        if d is not None
    )
    head = "<th>difference</th><th>mean</th><th>95 % interval</th>"
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>" if rows else ""


def shown(claim: Claim, found: list[Comparison]) -> str:
    differences = [d for _, d in found if d is not None]
    test = f"It would take {escape(claim.experiment)}."
    if claim.compare:
        names = claim.experiment.split(", ")
        test = "Tested by " + ", ".join(f"<code>run {name}</code>" for name in names) + "."
    remark = (
        f"<p>{escape(claim.remark[:1].upper() + claim.remark[1:])}.</p>" if claim.remark else ""
    )
    return "\n".join(
        [
            f'<div class="claim"><p>{badge(verdict(claim, found))} {escape(claim.text)} '
            f"<small>Paper: {escape(claim.section)}</small></p>",
            forest(claim, differences) if differences else "",
            f"<details><summary>Numbers and test</summary>{numbers(found)}{remark}<p>{test}</p>",
            "</details></div>",
        ]
    )


def page(profile: str = "laptop") -> str:
    found = [(claim, claim.compare(profile) if claim.compare else []) for claim in CLAIMS]
    counts = Counter(verdict(*one) for one in found)
    tally = " ".join(f"{badge(words)} {count}" for words, count in counts.most_common())
    lines = ["```{raw} html", f'<p class="tally">{len(CLAIMS)} claims: {tally}</p>']
    lines += [shown(*one) for one in found]
    seconds = [r["seconds"] for r in read_records("train") if r["profile"] == profile]
    compute = f"{len(seconds)} models were trained, in {sum(seconds) / 3600:.1f} hours in all."
    devices = ", ".join(devices_of(profile))
    return "\n".join(
        [*lines, "```", "", f"{profile.capitalize()} profile, on {devices}. {compute}"]
    )


if __name__ == "__main__":
    print(page())
