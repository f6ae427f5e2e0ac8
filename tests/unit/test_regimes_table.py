"""The table of the regimes: means, paired differences and claims, on made-up figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats

from benchmarks.regimes import table
from benchmarks.regimes.errors import RegimeError
from benchmarks.regimes.kinds import kind_of_fusion
from benchmarks.regimes.table import Difference

FIXED = ("concat_all", "towers")


def results(
    cell: str, ours: Sequence[float], concat: Sequence[float], towers: Sequence[float], kinds: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Draws of a cell; each score is the mean of two seeds a tenth of a point apart."""

    def of_method(score: float, kind: str) -> dict[str, Any]:
        return {"kind": kind, "test": {"0": score - 0.0005, "1": score + 0.0005}}

    return [
        {
            "cell": cell,
            "draw": draw,
            "methods": {
                "mfas": of_method(scores[0], kinds[draw] if kinds else "gated"),
                "concat_all": of_method(scores[1], "mlp"),
                "towers": of_method(scores[2], "towers"),
            },
            "seconds": {"search": 10.0 + draw, "train": 2.0},
        }
        for draw, scores in enumerate(zip(ours, concat, towers, strict=True))
    ]


GOOD = results("interaction-500", [0.5, 0.51, 0.49], [0.2, 0.2, 0.2], [0.1, 0.2, 0.3], ["gated", "product", "gated"])
EVEN = results("independent-500", [0.700, 0.710, 0.705], [0.60, 0.60, 0.60], [0.702, 0.708, 0.711])


def test_the_best_is_named_by_its_mean_over_draws_and_the_difference_is_paired() -> None:
    figures = table.cell_figures(EVEN, FIXED)
    assert figures.best == "towers"
    assert figures.means["mfas"] == pytest.approx(0.705)
    points = np.array([-0.2, 0.2, -0.6])
    expected = stats.ttest_1samp(points, 0.0).confidence_interval(0.95)
    assert figures.difference.mean == pytest.approx(-0.2)
    assert figures.difference.low == pytest.approx(expected.low)
    assert figures.difference.high == pytest.approx(expected.high)
    assert figures.seconds == {"search": 11.0, "train": 2.0}
    # In one draw concatenation is the best; the mean decides.
    assert table.cell_figures(GOOD, FIXED).best == "concat_all"


def test_the_winner_is_the_most_frequent_kind() -> None:
    assert table.cell_figures(GOOD, FIXED).winner == "gated (2 of 3)"
    assert table.cell_figures(EVEN, FIXED).winner == "gated"


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        ({"kind": "towers"}, "towers"),
        ({"kind": "network", "layers": [{}]}, "concatenation"),
        ({"kind": "network", "layers": [{}, {}, {}]}, "3 x concatenation"),
        (
            {"kind": "network", "layers": [{"operator": "supervised_towers"}, {"operator": "product"}]},
            "supervised towers, product",
        ),
    ],
)
def test_a_kind_is_said_in_few_words(head: dict[str, Any], kind: str) -> None:
    assert kind_of_fusion(head) == kind


def test_the_claims_are_judged() -> None:
    both = table.all_figures([*EVEN, *GOOD], FIXED)
    assert [one.cell for one in both] == ["independent-500", "interaction-500"]
    never_worse, above_any, clearly = table.verdicts(both, FIXED)
    assert never_worse.holds
    assert never_worse.value == pytest.approx(-0.2)
    assert "independent-500" in never_worse.what
    # Towers are the strongest on the mean: -0.2 and 30 points below, so 14.9.
    assert above_any.holds
    assert above_any.value == pytest.approx(14.9)
    assert "(towers)" in above_any.what
    assert not clearly.holds
    assert clearly.value == 1
    assert "(interaction-500)" in clearly.what
    worse = results("three-2000", [0.60, 0.61], [0.61, 0.62], [0.50, 0.51])
    twice = results("interaction-2000", [0.50, 0.51, 0.49], [0.2, 0.2, 0.2], [0.4, 0.4, 0.4])
    never_worse, _, clearly = table.verdicts(table.all_figures([*worse, *GOOD, *twice], FIXED), FIXED)
    assert not never_worse.holds
    assert clearly.holds


def test_an_interval_that_touches_zero_is_no_evidence() -> None:
    wide = results("interaction-500", [0.50, 0.30], [0.2, 0.2], [0.1, 0.1])
    figures = table.cell_figures(wide, FIXED)
    assert figures.difference.mean == pytest.approx(20)
    assert table.verdicts([figures], FIXED)[2].value == 0
    one = table.cell_figures(GOOD[:1], FIXED)
    assert str(one.difference) == "+30.0 (one draw)"
    assert table.verdicts([one], FIXED)[2].value == 0


def test_the_text_has_every_cell_the_means_and_the_claims() -> None:
    figures = table.all_figures([*EVEN, *GOOD], FIXED)
    lines = table.text(figures, FIXED).splitlines()
    assert [line.split("|")[1].strip() for line in lines[:5]] == [
        "cell", "-" * 21, "independent-500", "interaction-500", "mean over the cells"
    ]  # fmt: skip
    assert [cell.strip() for cell in lines[2].split("|")[2:5]] == ["60.0", "70.7", "70.5"]
    assert "-0.2 [" in lines[2]
    assert "gated (2 of 3)" in lines[3]
    assert lines[-3].startswith("- (i) ")
    assert lines[-3].endswith("target at least -0.5 points: holds")
    assert lines[-1].endswith("1.00 cells, target at least 2 cells: does not hold")


def test_all_figures_are_kept_as_json() -> None:
    figures = table.all_figures(GOOD, FIXED)
    kept = table.as_json(GOOD, figures, FIXED)
    assert kept["draws"] == GOOD
    assert kept["cells"][0]["difference"]["mean"] == pytest.approx(30)
    assert [claim["holds"] for claim in kept["claims"]] == [True, True, False]


def test_a_draw_without_a_test_score_is_refused() -> None:
    lacking = results("interaction-500", [0.5, 0.5], [0.2, 0.2], [0.1, 0.1])
    del lacking[1]["methods"]["towers"]
    with pytest.raises(RegimeError, match="interaction-500, draw 1: expected test scores of towers, found none"):
        table.cell_figures(lacking, FIXED)


def test_a_difference_of_equal_scores_is_zero() -> None:
    same = np.array([0.5, 0.6, 0.7])
    assert Difference.of(same, same) == Difference(0.0, 0.0, 0.0)
