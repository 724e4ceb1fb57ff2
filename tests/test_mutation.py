"""The script behind `make mutants`: what it reads, counts and writes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import mutation
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent


def test_outcomes_are_counted_and_survivors_named_by_function() -> None:
    codes = {
        "qaconv_lib.matching.x_correlate__mutmut_1": 1,
        "qaconv_lib.matching.x_correlate__mutmut_2": 0,
        "qaconv_lib.matching.x_correlate__mutmut_10": 0,
        "qaconv_lib.matching.xǁQAConvǁ__init____mutmut_1": 33,
        "qaconv_lib.matching.x__pool__mutmut_1": -24,
        "qaconv_lib.matching.x__pool__mutmut_2": -11,
    }
    assert mutation.summary(codes) == {
        "mutants": 6,
        "killed": 2,
        "timed_out": 1,
        "survived": 2,
        "untested": 1,
        "survivors": {"matching.correlate": 2, "matching.QAConv.__init__": 1},
    }


@pytest.mark.parametrize("code", [None, 2, 34])
def test_a_mutant_without_an_outcome_is_named(code: int | None) -> None:
    with pytest.raises(ValueError, match="1 mutants have no outcome, among them a.x_f__mutmut_2"):
        mutation.summary({"a.x_f__mutmut_1": 1, "a.x_f__mutmut_2": code})


@pytest.mark.parametrize(("killed", "status"), [(17, 0), (16, 1)])
def test_records_are_written_and_a_low_share_is_an_error(
    killed: int, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    (tmp_path / "results").mkdir()
    monkeypatch.setenv("QACONV_DATA", str(tmp_path))
    monkeypatch.setattr(mutation, "ROOT", tmp_path)
    monkeypatch.setattr(mutation, "version", lambda package: "3.0")
    folder = tmp_path / "mutants" / "qaconv_lib"
    folder.mkdir(parents=True)
    for file in sum(mutation.MODULES.values(), []):
        codes = {f"qaconv_lib.{file}.x_f__mutmut_{k}": int(k < killed) for k in range(20)}
        meta = json.dumps({"exit_code_by_key": codes})
        (folder / f"{file}.py.meta").write_text(meta, encoding="utf-8")
    assert mutation.main() == status
    assert ("fewer than 85 %" in capsys.readouterr().err) == bool(status)
    record = json.loads((tmp_path / "results/mutation/reranking.json").read_text("utf-8"))
    assert (record["mutants"], record["killed"], record["survived"]) == (
        40,
        2 * killed,
        40 - 2 * killed,
    )
    assert f"| `reranking` | 40 | {5 * killed:.1f} % | {40 - 2 * killed} |" in mutation.table()
    assert record["versions"]["mutmut"] == "3.0" and {"python", "torch"} <= set(record["versions"])


def test_the_settings_change_what_the_script_reads() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("[tool.mutmut]")[1]
    changed = re.findall(r'"qaconv_lib/(\w+)\.py"', text)
    assert sorted(changed) == sorted(sum(mutation.MODULES.values(), []))
    for file in re.findall(r'"(tests/\w+\.py)"', text):
        assert (ROOT / file).is_file(), file


def test_the_folder_of_mutants_is_no_part_of_the_book() -> None:
    assert "mutants/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    assert "mutants" in config["exclude_patterns"]
