"""Counting a blind comparison: the drawn order decides what A and B were."""

import json
from pathlib import Path

from bench.planner_blind import ONCE, PLANNED, count


def test_judgements_are_counted_for_the_way_that_was_drawn(tmp_path: Path) -> None:
    def drawn(first: str) -> dict[str, dict[str, object]]:
        other = ONCE if first == PLANNED else PLANNED
        return {"A": {"way": first, "seconds": 10}, "B": {"way": other, "seconds": 4}}

    facts = {"1": drawn(PLANNED), "2": drawn(ONCE), "3": drawn(ONCE), "4": drawn(PLANNED), "5": drawn(ONCE)}
    (tmp_path / "drawn.json").write_text(json.dumps(facts))
    (tmp_path / "judgements.csv").write_text("id,better\n1,A\n2,A\n3,b\n4,tie\n5,\n")
    told = count(tmp_path)
    assert "better: 2" in told
    assert "worse: 1" in told
    assert "tie: 1" in told
    assert "not judged: 1" in told
