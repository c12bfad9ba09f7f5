"""CSV for spreadsheets: numbers in the format of the country, names that are not formulas."""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.common.errors import InvalidRequest

_POINT, _COMMA, _SEMICOLON = ".", ",", ";"
# What makes a text a formula: see "CSV injection" by OWASP. The last four are full-width characters.
_BEGINS_A_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_QUOTE = "'"


@dataclass(frozen=True)
class Excel:
    """The CSV format of a spreadsheet in some country.

    Attributes:
        delimiter: between cells.
        decimal: decimal mark of numbers.
    """

    delimiter: str = _COMMA
    decimal: str = _POINT

    @property
    def beginning(self) -> bytes:
        """The beginning of files, so that Excel reads UTF-8. A line ``sep=;`` after it would make Excel ignore it."""
        return "\ufeff".encode()

    def cell(self, value: Any) -> str:
        """The text of a value; numbers keep every digit."""
        if value is None:
            return ""
        if isinstance(value, int | float):
            return json.dumps(value).replace(_POINT, self.decimal)
        text = value if isinstance(value, str) else json.dumps(value)
        return _QUOTE + text if text.lstrip().startswith((*_BEGINS_A_FORMULA, _QUOTE)) else text

    def number(self, cell: str) -> str:
        """The number in a cell, in the format of JSON.

        Raises:
            ValueError: it is not a number, or has another decimal mark.
        """
        if not cell:
            return cell
        if self.decimal != _POINT and _POINT in cell:
            raise ValueError("another decimal mark")
        number = cell.replace(self.decimal, _POINT)
        float(number)
        return number

    @staticmethod
    def text(cell: str) -> str:
        """The text in a cell."""
        return cell.removeprefix(_QUOTE)


def add_excel(parser: argparse.ArgumentParser) -> None:
    """Add the options of a CSV file for spreadsheets."""
    parser.add_argument(
        "--excel",
        action="store_true",
        help="write the .csv FILE as English Excel opens it; for German, Spanish or French Excel add --decimal ,",
    )
    parser.add_argument(
        "--decimal", metavar="MARK", choices=(_POINT, _COMMA), help="with --excel: decimal mark; default ."
    )
    parser.add_argument(
        "--delimiter",
        metavar="MARK",
        choices=(_COMMA, _SEMICOLON),
        help="with --excel: separator between cells; default ; if the decimal mark is a comma, else ,",
    )


def excel_of(options: argparse.Namespace, path: Path | None, option: str) -> Excel | None:
    """The format of the options; None for plain CSV.

    Args:
        options: of the command line.
        path: the file.
        option: the option of the file.

    Raises:
        InvalidRequest: they cannot be combined, or do not suit the file.
    """
    if not options.excel:
        if options.decimal or options.delimiter:
            raise InvalidRequest("--decimal and --delimiter have no effect without --excel: add --excel")
        return None
    if path is None or path.suffix.lower() != ".csv":
        raise InvalidRequest(f"--excel needs a CSV file: give {option} FILE.csv")
    has_comma = options.decimal == _COMMA if options.decimal else options.delimiter == _SEMICOLON
    decimal = options.decimal or (_COMMA if has_comma else _POINT)
    delimiter = options.delimiter or (_SEMICOLON if has_comma else _COMMA)
    if decimal == delimiter:
        raise InvalidRequest("--decimal , and --delimiter , would be the same character: give --delimiter ;")
    return Excel(delimiter, decimal)
