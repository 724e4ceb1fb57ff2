"""Writes what `make mutants` found to `data/results/mutation`, one record a module of the library.

A mutant is the library with one place changed. It is killed if a test fails or crashes, and
survives if none does: then nothing tests that place, or the change makes no visible difference.

python book/mutation.py           read the folder mutants/, write the records, fail below 85 %
python book/mutation.py --table   print the records as the table of the page "How to contribute"
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from importlib.metadata import version
from pathlib import Path

from qaconv_lib.experiments.records import provenance, results_folder, write_record

ROOT = Path(__file__).resolve().parent.parent
# A module with the private ones that only it imports.
MODULES = {
    "matching": ["matching"],
    "evaluation": ["evaluation"],
    "reranking": ["reranking"],
    "temporal": ["temporal"],
    "tfusion": ["beyond/tfusion"],
}
FLOOR = 0.85  # share of the mutants that tests must notice
# Exit codes that mutmut keeps: of the tests, of itself, or minus the signal that ended them.
KILLED = {1, 3, -4, -6, -7, -8, -11}  # a crash is noticed too
TIMED_OUT = {-9, -24, 24, 36, 152, 255}
SURVIVED, UNTESTED = {0}, {5, 33}


def outcomes(folder: Path, files: list[str]) -> dict[str, int | None]:
    """Exit code of the tests for each mutant, from what mutmut left in its folder."""
    found: dict[str, int | None] = {}
    for file in files:
        text = (folder / "qaconv_lib" / f"{file}.py.meta").read_text(encoding="utf-8")
        found |= json.loads(text)["exit_code_by_key"]
    return found


def summary(codes: dict[str, int | None]) -> dict:
    """Counts of mutants, and the number of survivors in each function that has some.

    Raises:
        ValueError: a mutant was not tried, or ended in another way than by a test.
    """
    counts = {"mutants": len(codes)}
    for name, wanted in (
        ("killed", KILLED),
        ("timed_out", TIMED_OUT),
        ("survived", SURVIVED),
        ("untested", UNTESTED),
    ):
        counts[name] = sum(code in wanted for code in codes.values())
    if sum(counts.values()) != 2 * len(codes):
        known = KILLED | TIMED_OUT | SURVIVED | UNTESTED
        odd = sorted(name for name, code in codes.items() if code not in known)
        raise ValueError(f"{len(odd)} mutants have no outcome, among them {odd[0]}")
    left = Counter(
        readable(name) for name, code in sorted(codes.items()) if code in SURVIVED | UNTESTED
    )
    return counts | {"survivors": dict(left)}


def readable(mutant: str) -> str:
    """`matching.QAConv.fold` from `qaconv_lib.matching.xǁQAConvǁfold__mutmut_3`."""
    module, _, name = mutant.removeprefix("qaconv_lib.").partition(".")
    name = name.rpartition("__mutmut_")[0].removeprefix("x")
    return f"{module}.{name.strip('ǁ').replace('ǁ', '.') if 'ǁ' in name else name[1:]}"


def noticed(record: dict) -> float:
    """Share of a module's mutants that a test failed on, crashed on or never came back from."""
    return (record["killed"] + record["timed_out"]) / record["mutants"]


def table() -> str:
    """The records as a Markdown table, in the order of MODULES."""
    lines = ["| module | changes | noticed | not noticed |", "|---|---:|---:|---:|"]
    for module in MODULES:
        path = results_folder() / "mutation" / f"{module}.json"
        record = json.loads(path.read_text(encoding="utf-8"))
        share = f"{100 * noticed(record):.1f} %"
        left = record["survived"] + record["untested"]
        lines.append(f"| `{module}` | {record['mutants']} | {share} | {left} |")
    return "\n".join(lines)


def main() -> int:
    """Write the records and print them; 1 where a module is below the floor."""
    made_with = provenance("cpu")
    made_with["versions"]["mutmut"] = version("mutmut")
    status = 0
    for module, files in MODULES.items():
        found = summary(outcomes(ROOT / "mutants", files))
        write_record("mutation", module, {"module": module, "files": files} | found | made_with)
        print(
            f"{module:12} {found['mutants']:4} mutants, {found['killed']} killed, "
            f"{found['timed_out']} timed out, {found['survived']} survived, "
            f"{found['untested']} untested: {100 * noticed(found):.1f} % noticed"
        )
        if noticed(found) < FLOOR:
            print(f"{module}: fewer than {100 * FLOOR:.0f} % noticed", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python book/mutation.py", description=__doc__)
    parser.add_argument("--table", action="store_true", help="print the records, write nothing")
    if parser.parse_args().table:
        print(table())
    else:
        raise SystemExit(main())
