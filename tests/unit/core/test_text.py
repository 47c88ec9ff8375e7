from __future__ import annotations

import math
import re

import pytest

from hyperformer.core.errors import HyperFormerError
from hyperformer.core.text import (
    combine,
    find_columns,
    join_source,
    nearest_index,
    normalize_scores,
    number_grid,
    render,
)


def test_columns_come_in_the_order_of_the_template() -> None:
    assert find_columns("premise: {premise} hypothesis: {hypothesis}") == ["premise", "hypothesis"]


def test_doubled_braces_are_text_and_no_column() -> None:
    assert find_columns("{{set}} {a}") == ["a"]
    assert render("{{set}} {a}", {"a": "x"}) == "{set} x"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("sentence: {sentence", "stray '{'"),
        ("sentence: sentence}", "stray '}'"),
        ("{{a}", "stray '}'; write columns as {column}, and a literal brace as {{ or }}"),
        ("{}", "expected the name of a column"),
        ("{ }", "expected the name of a column"),
        ("{a!r}", "expected the name of a column without ':' or '!' in braces. Rename the column"),
        ("{a:>9}", "expected the name of a column without ':' or '!'"),
        ("{a:{b}}", "stray '{'"),
        ("no column at all", "names no column"),
        ("", "names no column"),
    ],
)
def test_an_invalid_template_is_refused(template: str, message: str) -> None:
    with pytest.raises(HyperFormerError, match=re.escape(message)):
        find_columns(template)


@pytest.mark.parametrize(
    "name",
    ["Review Text", "row.label", "row[0]", "0", "a b.c/d", " padded ", "日本語", "a\nb", '"', "a,b", "$"],
)
def test_a_column_may_have_any_name_without_braces_colon_and_exclamation_mark(name: str) -> None:
    assert find_columns(f"{{{{{{{name}}}}}}} and {{{name}}}") == [name]
    assert render(f"{{{{{{{name}}}}}}} $5", {name: "x"}) == "{x} $5"


def test_render_inserts_the_values_of_the_row() -> None:
    row = {"b": 2, "a": "one {not a column}", "unused": "x"}
    assert render("a: {a} b: {b}.", row) == "a: one {not a column} b: 2."


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"a": "x"}, "no 'b'; expected the columns a, b"),
        ({"a": "x", "b": None}, "'b' is null, expected a string, a number or a boolean"),
    ],
)
def test_render_names_a_column_that_is_missing_or_empty(row: dict[str, str | None], message: str) -> None:
    with pytest.raises(HyperFormerError, match=message):
        render("{a} {b}", row)


@pytest.mark.parametrize("row", [{"a": "x", "b": None}, {"a": "x"}])
def test_render_inserts_an_empty_text_for_a_missing_value_if_the_task_says_so(row: dict[str, str | None]) -> None:
    assert render("{a}-{b}.", row, "empty") == "x-."
    assert render(("{a}", "{b}"), row, "empty") == ("x", "")
    assert render("{a}-{b}.", {"a": "x", "b": math.nan}, "empty") == "x-."


def test_two_templates_are_two_texts() -> None:
    template = ("q: {q}", "{s} {q}")
    assert find_columns(template) == ["q", "s"]
    assert render(template, {"q": "Who?", "s": "Mia."}) == ("q: Who?", "Mia. Who?")
    assert join_source(("Who?", "Mia.")) == "Who? Mia."
    assert join_source("Who?") == "Who?"
    with pytest.raises(HyperFormerError, match="no 's'; expected the columns q, s, got q"):
        render(template, {"q": "Who?"})


def test_render_keeps_an_empty_text() -> None:
    assert render("a: {a}", {"a": ""}) == "a: "


def test_grid_of_stsb_has_26_answers_with_one_decimal() -> None:
    pairs = number_grid(0, 5, 0.2)
    tenths = range(0, 51, 2)
    assert [text for text, _ in pairs] == [f"{tenth // 10}.{tenth % 10}" for tenth in tenths]
    assert [number for _, number in pairs] == pytest.approx([tenth / 10 for tenth in tenths])


def test_grid_of_whole_steps_has_whole_numbers() -> None:
    assert number_grid(0.0, 5.0, 1.0) == [("0", 0.0), ("1", 1.0), ("2", 2.0), ("3", 3.0), ("4", 4.0), ("5", 5.0)]


def test_grid_starts_at_the_minimum_and_never_passes_the_maximum() -> None:
    assert [text for text, _ in number_grid(-0.5, 0.6, 0.25)] == ["-0.50", "-0.25", "0.00", "0.25", "0.50"]


def test_nearest_takes_the_closest_number_and_of_two_the_lower() -> None:
    numbers = [0.0, 1.0, 2.0]
    assert [nearest_index(numbers, number) for number in (-3.0, 0.4, 0.5, 0.6, 1.5, 9.0)] == [0, 0, 0, 1, 1, 2]


def test_probabilities_are_the_softmax_of_the_scores() -> None:
    normalized = normalize_scores([math.log(1), math.log(2), math.log(5)])
    assert normalized == pytest.approx([0.125, 0.25, 0.625])


@pytest.mark.parametrize("scores", [[-2000.0, -2001.0], [2000.0, 1999.0], [-1e9, 0.0], [-3.5]])
def test_probabilities_sum_to_one_however_large_the_scores(scores: list[float]) -> None:
    normalized = normalize_scores(scores)
    assert sum(normalized) == pytest.approx(1.0)
    assert all(0.0 <= probability <= 1.0 for probability in normalized)


def test_combine_gives_the_likeliest_label_and_every_probability() -> None:
    answer = combine([math.log(0.2), math.log(0.7), math.log(0.1)], ["a", "b", "c"])
    assert answer.label == "b"
    assert answer.probabilities == pytest.approx({"a": 0.2, "b": 0.7, "c": 0.1})
    assert answer.value is None


def test_combine_gives_the_first_of_equally_likely_labels() -> None:
    assert combine([-2.0, -1.0, -1.0], ["a", "b", "c"]).label == "b"


def test_combine_gives_the_expected_number_of_a_regression_task() -> None:
    answer = combine([math.log(0.5), math.log(0.3), math.log(0.2)], ["0", "2", "5"], [0.0, 2.0, 5.0])
    assert answer.label == "0"
    assert answer.value == pytest.approx(0.3 * 2 + 0.2 * 5)
