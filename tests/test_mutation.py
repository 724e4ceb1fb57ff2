"""The script behind `make mutants`: what it reads, counts and writes."""

import json

import mutation
import pytest


@pytest.mark.parametrize(("killed", "status"), [(19, 0), (18, 1)])
def test_records_are_written_and_a_low_share_is_an_error(killed, status, tmp_path, monkeypatch):
    (tmp_path / "results").mkdir()
    monkeypatch.setenv("QACONV_DATA", str(tmp_path))
    monkeypatch.setattr(mutation, "ROOT", tmp_path)
    monkeypatch.setattr(mutation, "version", lambda package: "3.0")
    folder = tmp_path / "mutants" / "qaconv_lib" / "beyond"
    folder.mkdir(parents=True)
    codes = {f"qaconv_lib.beyond.a.x_f__mutmut_{k}": int(k < killed) for k in range(20)}
    (folder / "a.py.meta").write_text(json.dumps({"exit_code_by_key": codes}), encoding="utf-8")
    assert mutation.main() == status
    record = json.loads((tmp_path / "results/mutation/a.json").read_text("utf-8"))
    assert (record["mutants"], record["killed"], record["survived"]) == (20, killed, 20 - killed)
    assert record["survivors"] == {"beyond.a.f": 20 - killed}
    assert f"| `a` | 20 | {5 * killed:.1f} % | {20 - killed} |" in mutation.table()
