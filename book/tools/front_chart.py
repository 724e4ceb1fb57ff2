"""Print the chart of the front page: mAP across domains, from the records of the headline table."""

from __future__ import annotations

from qaconv_lib.experiments.comparisons import LABELS, average_precision, scores_of
from qaconv_lib.experiments.profiles import get_profile
from qaconv_lib.experiments.statistics import Difference, two_way_bootstrap
from qaconv_lib.experiments.suite import DIRECTIONS

LOSSES = ("softmax", "arc", "qaconv")
STAGES = {"alone": "alone", "+RR+TLift": "with RR and TLift"}


def mean_ap(found: list[dict]) -> Difference:
    """mAP in percent over the seeds, and its interval over people and seeds."""
    return two_way_bootstrap(average_precision(found), groups=found[0]["identity"])


def bar(loss: str, stage: str, value: Difference) -> str:
    kind = " ours" if loss == "qaconv" else ""
    places = f"--mean: {value.mean:.1f}; --low: {value.low:.1f}; --high: {value.high:.1f}"
    return (
        f'<tr class="{"after" if stage != "alone" else "alone"}{kind}">'
        f'<th scope="row">{LABELS[loss]} <small>{STAGES[stage]}</small></th>'
        f'<td class="bar" style="{places}" aria-hidden="true"><i></i><b></b></td>'
        f"<td>{value.mean:.1f} <small>[{value.low:.1f}, {value.high:.1f}]</small></td></tr>"
    )


def chart(profile: str = "laptop") -> str:
    """A table whose cells are drawn as bars by the page's style sheet."""
    names, lines = get_profile(profile).datasets, ["```{raw} html", '<table class="bars">']
    lines += ["<caption>mAP in percent on cameras that the model never saw, with the 95 % interval"]
    lines += ["over people and training runs; mean of five seeds.</caption>"]
    for source, target in DIRECTIONS:
        title = f"trained on {names[source]}, tested on {names[target]}"
        lines += [f'<tbody><tr><th colspan="3" scope="rowgroup">{title}</th></tr>']
        for loss in LOSSES:
            for stage in STAGES:
                found = scores_of(profile, source, target, loss, stage)
                lines.append(bar(loss, stage, mean_ap(found)))
        lines.append("</tbody>")
    return "\n".join([*lines, "</table>", "```"])


if __name__ == "__main__":
    print(chart())
