"""Write what `make mutants` found to `data/results/mutation`, one record per module of the library.

A mutant is the library with one place changed. It is killed if a test fails or crashes. It survives
if none does: then no test covers that place, or the change makes no visible difference.

python book/tools/mutation.py           read the folder mutants/, write records, fail below 92 %
python book/tools/mutation.py --table   print the records as the table of the page "Contributing"
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from importlib.metadata import version
from pathlib import Path

from qaconv_lib.experiments.records import provenance, results_folder, write_record

ROOT = Path(__file__).resolve().parent.parent.parent
FLOOR = 0.92  # share of the mutants that tests must notice
# Exit codes that mutmut keeps: of the tests, of itself, or minus the signal that ended them.
OUTCOMES = {
    "killed": {1, 3, -4, -6, -7, -8, -11},  # a crash is noticed too
    "timed_out": {-9, -24, 24, 36, 152, 255},
    "survived": {0},
    "untested": {5, 33},
}


def summary(codes: dict[str, int | None]) -> dict:
    """Counts of mutants by outcome, and the number of survivors in each function that has some."""
    outcome = {code: name for name, known in OUTCOMES.items() for code in known}
    odd = sorted(mutant for mutant, code in codes.items() if code not in outcome)
    if odd:
        raise ValueError(f"{len(odd)} mutants have no outcome, among them {odd[0]}")
    counts = Counter(outcome[code] for code in codes.values())
    missed = OUTCOMES["survived"] | OUTCOMES["untested"]
    left = Counter(readable(mutant) for mutant, code in sorted(codes.items()) if code in missed)
    return {
        "mutants": len(codes),
        **{name: counts[name] for name in OUTCOMES},
        "survivors": dict(left),
    }


def readable(mutant: str) -> str:
    """`matching.QAConv.fold` from `qaconv_lib.matching.xǁQAConvǁfold__mutmut_3`."""
    module, name = mutant.rpartition("__mutmut_")[0].removeprefix("qaconv_lib.").rsplit(".", 1)
    name = name.removeprefix("x")
    return f"{module}.{name.strip('ǁ').replace('ǁ', '.') if 'ǁ' in name else name[1:]}"


def share_noticed(record: dict) -> float:
    return (record["killed"] + record["timed_out"]) / record["mutants"]


def table() -> str:
    """The records as a Markdown table."""
    lines = ["| module | changes | noticed | not noticed |", "|---|---:|---:|---:|"]
    for path in sorted((results_folder() / "mutation").glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        left = record["survived"] + record["untested"]
        share = f"{100 * share_noticed(record):.1f} %"
        lines.append(f"| `{path.stem}` | {record['mutants']} | {share} | {left} |")
    return "\n".join(lines)


def main() -> int:
    """Write the records; 1 if tests notice too few mutants of a module."""
    made_with = provenance("cpu")
    made_with["versions"]["mutmut"] = version("mutmut")
    folder = ROOT / "mutants" / "qaconv_lib"
    status = 0
    for path in sorted(folder.rglob("*.py.meta")):
        codes = json.loads(path.read_text(encoding="utf-8"))["exit_code_by_key"]
        if not codes:
            continue
        module = path.name.removesuffix(".py.meta")
        file = path.relative_to(folder).as_posix().removesuffix(".py.meta")
        found = summary(codes)
        write_record("mutation", module, {"module": module, "files": [file]} | found | made_with)
        counts = ", ".join(f"{found[name]} {name}" for name in OUTCOMES)
        share = share_noticed(found)
        print(f"{module:12} {found['mutants']:4} mutants: {counts}; {100 * share:.1f} % noticed")
        if share < FLOOR:
            print(f"{module}: fewer than {100 * FLOOR:.0f} % noticed", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python book/tools/mutation.py", description=__doc__)
    parser.add_argument("--table", action="store_true", help="print the records, write nothing")
    if parser.parse_args().table:
        print(table())
    else:
        raise SystemExit(main())
