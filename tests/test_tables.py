"""Tables drawn from records, on records made up for the purpose."""

import dataclasses

import numpy as np
import pytest

from qaconv_lib.cli import main
from qaconv_lib.experiments import tables
from qaconv_lib.experiments.comparisons import compare, find_scores
from qaconv_lib.experiments.profiles import get_profile
from qaconv_lib.experiments.published import TABLE1, TABLE2, TABLES34
from qaconv_lib.experiments.records import write_record
from qaconv_lib.experiments.runs import STAGES, Run
from qaconv_lib.experiments.statistics import two_way_bootstrap
from qaconv_lib.experiments.suite import ABLATIONS, EXPERIMENTS, graph_sampling_settings


def scores(precision, first):
    return {
        "rank1": float(np.mean(np.equal(first, 1))),
        "mean_ap": float(np.mean(precision)),
        "identity": [7, 7, 8, 9][: len(precision)],
        "average_precision": list(map(float, precision)),
        "first_match_rank": list(map(int, first)),
    }


def write(run, target, stages, folder="evaluate", **more):
    record = {"experiment": folder, **run.about, "config": dataclasses.asdict(run.config())}
    record |= {"target": target, "device": "CPU (test)", "stages": stages, **more}
    write_record(folder, f"{run.name}-on-{target}", record)


@pytest.fixture
def filled(no_records):
    """Two seeds of QAConv and softmax from mini-market to mini-duke, four queries."""
    for loss, level in (("qaconv", 0.5), ("softmax", 0.3)):
        for seed, shift in ((0, 0.0), (1, 0.1)):
            precision = np.array([level, level + 0.1, level, level - 0.1]) + shift
            first = [1, 1 if loss == "qaconv" else 2, 3, 4]
            stages = {
                stage: scores(precision + 0.05 * number, first)
                for number, stage in enumerate(STAGES)
            }
            write(Run(loss, "mini-market", seed=seed), "mini-duke", stages)


def test_cells_hold_mean_and_deviation_over_the_seeds(filled):
    table = tables.headline_table()
    # Rank-1: 2 of 4 for both seeds; mAP: 50 and 60, deviation 7.07.
    assert table.loc["QAConv", "mini-market → mini-duke"] == "50.0 ± 0.0 / 55.0 ± 7.1 (2)"
    assert table.loc["QAConv + TLift", "mini-market → mini-duke"].endswith("60.0 ± 7.1 (2)")
    assert table.loc["softmax", "mini-market → mini-duke"].startswith("25.0 ± 0.0 / 35.0")
    assert (table["mini-duke → mini-market"] == "–").all()


def test_within_a_domain_means_tested_at_home(filled):
    write(Run("softmax", "mini-duke"), "mini-duke", {"alone": scores([0.4] * 4, [1] * 4)})
    table = tables.within_table()
    assert table.loc["softmax", "mini-duke"] == "100.0 / 40.0 (1)"
    assert (table["mini-market"] == "–").all()


def test_differences_draw_people_and_seeds_that_are_paired_only_for_the_same_models(filled):
    ours = find_scores(Run("qaconv", "mini-market"), "mini-duke")
    theirs = find_scores(Run("softmax", "mini-market"), "mini-duke")
    one, other = (100 * np.array([s["average_precision"] for s in f]) for f in (ours, theirs))
    found = compare(ours, theirs)
    assert found == two_way_bootstrap(one, other, [7, 7, 8, 9])
    assert found.mean == pytest.approx(20.0) and found.seeds == 2 and found.low < 0
    later = compare(find_scores(Run("qaconv", "mini-market"), "mini-duke", "+RR"), ours)
    assert later.low == pytest.approx(later.high) == pytest.approx(10.0)  # for each seed and query
    assert compare(ours, []) is None
    with pytest.raises(ValueError, match="not of the same queries"):
        compare(ours, [*theirs, theirs[0] | {"identity": [7, 8, 8, 9]}])
    cell = tables.table1().loc["softmax", "QAConv ahead, mAP, mini-market → mini-duke"]
    assert cell.startswith("+20.0 [")


def test_published_numbers_stand_in_columns_of_their_own(filled):
    for table, published in ((tables.table1(), TABLE1), (tables.table2(), TABLE2)):
        for column in table:
            if column.startswith("published"):
                shown = {cell for cell in table[column] if cell != "–"}
                direction = tuple(column.removeprefix("published, ").split(" → "))
                assert shown == {
                    "{:.1f} / {:.1f}".format(*row[direction]) for row in published.values()
                }


def test_tfusion_is_read_from_its_own_records(filled):
    chosen, best = scores([0.2] * 4, [2] * 4), scores([0.4] * 4, [1] * 4)
    variants = {"chosen": chosen, "best": best, "best, own camera suppressed": best}
    write(Run("qaconv", "mini-market"), "mini-duke", {}, "tfusion", variants=variants)
    table = tables.table2()["mini-market → mini-duke"]
    assert table["QAConv + RR + TFusion"] == "0.0 / 20.0 (1)"
    assert table["QAConv + RR + TFusion (best)"] == "100.0 / 40.0 (1)"
    assert table["QAConv + RR + TFusion (best, own camera suppressed)"] == "100.0 / 40.0 (1)"
    assert table["QAConv + RR + TLift (own camera suppressed)"] == "–"


def test_pooled_losses_are_shown_on_both_layers(filled):
    run = Run("softmax", "mini-market", settings=get_profile("laptop").on_layer3["softmax"])
    write(run, "mini-duke", {"alone": scores([0.45] * 4, [1] * 4)})
    table = tables.pooled_layer_table()
    shown = table["mini-market → mini-duke"]
    assert shown["softmax, layer4"].endswith("(2)") and shown["Arc loss, layer4"] == "–"
    assert shown["softmax, layer3"] == "100.0 / 45.0 (1)"
    ahead = table["QAConv ahead, mAP, mini-market → mini-duke"]
    assert ahead["softmax, layer3"].startswith("+10.0") and ahead["QAConv, layer3"] == "–"


def test_tables_3_and_4_know_source_backbone_and_stage(filled):
    run = Run("qaconv", "mini-msmt17-all", settings={"backbone": "efficientnet_lite2"})
    write(run, "mini-cuhk03", {"+RR": scores([0.3] * 4, [9] * 4)})
    third, fourth = tables.table3(), tables.table4()
    row = fourth.loc[("mini-msmt17-all", "efficientnet_lite2", "+RR")]
    assert row["→ mini-cuhk03"] == "0.0 / 30.0 (1)"
    assert row["→ mini-msmt17"] == row["published, → msmt17"] == ""
    row = third.loc[("mini-market", "efficientnet_lite0", "alone")]
    assert row["→ mini-duke"].endswith("(2)") and row["published, → duke"] == "48.8 / 28.7"
    shown = [cell for table in (third, fourth) for c in table if "pub" in c for cell in table[c]]
    assert sum("/" in cell for cell in shown) == len(TABLES34)


@pytest.mark.parametrize("name", ["occlusion", "epochs-arc", "distill"])
def test_an_ablation_compares_with_its_first_variant(filled, name):
    loss, variants = ABLATIONS[name]
    if loss != "qaconv":
        write(Run(loss, "mini-market"), "mini-duke", {"alone": scores([0.35] * 4, [1] * 4)})
    run = Run(loss, "mini-market", settings=list(variants.values())[1])
    write(run, "mini-duke", {"alone": scores([0.7] * 4, [1] * 4)})
    table = tables.ablation_table(name)
    assert list(table.index) == list(variants)
    assert table.iloc[0]["mAP against the first"] == "–"
    assert table.iloc[1]["rank-1 / mAP"] == "100.0 / 70.0 (1)"
    assert table.iloc[1]["mAP against the first"].startswith(
        "+15.0" if loss == "qaconv" else "+35.0"
    )


def test_graph_sampling_is_held_against_the_memory_and_against_random_people(filled):
    compared = graph_sampling_settings(get_profile("laptop"))
    for label, level in (("pairs, random people", 0.4), ("pairs, graph", 0.42)):
        loss, settings = compared[label]
        for seed in (0, 1):
            run = Run(loss, "mini-market", seed=seed, settings=settings)
            write(run, "mini-duke", {"alone": scores([level] * 4, [1, 2, 3, 4])})
    table = tables.graph_sampling_table()
    assert list(table.index) == list(compared)
    assert (table.loc["pairs, random images"] == "–").all()  # no record of it
    cells = table.loc["pairs, graph"]
    assert cells["mini-market → mini-duke"].startswith("25.0")
    memory, people = (
        f"mAP against {words}, mini-market → mini-duke"
        for words in ("class memory", "random people")
    )
    assert cells[memory].startswith("-13.0 [") and cells[people].startswith("+2.0 [")
    assert table.loc["class memory", memory] == table.loc["class memory", people] == "–"
    assert table.loc["pairs, random people", people] == "–"


def test_tlift_shows_variants_and_values(filled):
    stages = {stage: scores([0.5] * 4, [1] * 4) for stage in ("+TLift", "+RR+TLift")}
    sweeps = [{"parameter": "tau", "value": 50, "stages": stages}]
    more = {"sweeps": sweeps, "variants": {"released": stages}}
    write(Run("qaconv", "mini-market"), "mini-duke", {}, "tlift", **more)
    table = tables.tlift_table()
    assert list(table.index) == ["released", "tau = 50"]
    assert (table == "100.0 / 50.0 (1)").all(axis=None)


def test_cost_is_that_beyond_the_libraries(no_records):
    steps = [
        {"step": "nothing", "loss": "any", "seconds": 0.0, "unit": "s", "peak_megabytes": 800},
        {"step": "s1", "loss": "a", "seconds": 2.5e-6, "unit": "s a pair", "peak_megabytes": 930},
        {"step": "s2", "loss": "b", "seconds": 0.125, "unit": "s", "peak_megabytes": None},
    ]
    assert tables.cost_table().empty
    record = Run("qaconv", "mini-duke").about | {"experiment": "cost", "device": "CPU (test)"}
    write_record("cost", "laptop-cpu", record | {"steps": steps})
    table = tables.cost_table()
    assert table.loc[("CPU (test)", "s1", "a")].tolist() == ["2.5 µs a pair", "130 MB"]
    assert table.loc[("CPU (test)", "s2", "b")].tolist() == ["125 ms", "–"]
    assert len(table) == 2 and tables.cost_table("paper").empty


def test_the_command_prints_what_there_is_and_no_more(filled, capsys):
    assert main(["tables"]) == 0
    printed = capsys.readouterr().out
    assert "55.0 ± 7.1" in printed and "CPU (test)" in printed
    assert EXPERIMENTS["table1"].title in printed and EXPERIMENTS["table3"].title not in printed
    assert main(["tables", "occlusion"]) == 0
    printed = capsys.readouterr().out
    assert "random erasing" in printed and "Table 1" not in printed
    assert main(["tables", "headline", "--profile", "paper"]) == 0
    assert "No records at the paper profile yet" in capsys.readouterr().out


def test_markdown():
    table = tables.to_markdown(tables.pd.DataFrame({"b": ["1"], "c": ["2"]}, index=["a"]))
    assert table == "|  | b | c |\n| --- | --- | --- |\n| a | 1 | 2 |"


def test_other_methods_stand_beside_the_published_numbers():
    table = tables.other_methods("duke", "market")
    assert table.loc[("adapts", "ECN"), "duke → market"] == "75.1 / 43.0"
    assert table.loc[("adapts", "DECAMEL")].tolist().count("–") == len(table.columns) - 1
    both = table.loc["direct, RR + TLift", "market → duke"]
    assert both.tolist() == ["64.5 / 55.1", "70.0 / 61.2"]
    # Section 5.4: with MSMT17 as source, only PAUL is ahead of QAConv with a ResNet-50 on Duke.
    duke = table.loc[["adapts", "direct"], "msmt17 → duke"].droplevel(0).sort_values()
    best = ["QAConv, ResNet-50", "PAUL", "QAConv, ResNet-152"]
    assert duke[duke != "–"].index[-3:].tolist() == best
    small = tables.other_methods("cuhk03", "msmt17")
    assert small.loc[("adapts", "PTGAN"), "duke → msmt17"] == "11.8 / 3.3"
