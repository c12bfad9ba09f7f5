"""Rates as the table and the page show them."""

from backend.commands.evaluate import table
from backend.commands.evaluate.metrics import Rate


def test_rates_and_their_bounds_have_the_same_digits():
    assert table.share(Rate(0, 800)) == "0 of 800 (0.0 %, 0.0 to 0.5 %)"
    assert table.share(Rate(3, 2000)) == "3 of 2000 (0.1 %, 0.0 to 0.4 %)"
