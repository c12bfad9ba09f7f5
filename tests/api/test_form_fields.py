"""Text fields of forms as browsers and careless clients send them."""

import asyncio

import pytest
from starlette.datastructures import FormData

from backend.api.forms import read_fields
from backend.api.schemas.inspection import InferFields
from tests.api.sending import IDS

FIELDS = {**IDS, "mm_per_px": "0.2"}


def read(*more, model=InferFields):
    """The fields of a form with these beside or before the usual ones."""
    return asyncio.run(read_fields(FormData([*FIELDS.items(), *more]), model))


@pytest.mark.parametrize("charset", ["UTF-8", "utf-8", "us-ascii", ""])
def test_the_charset_field_of_browsers_is_known(charset):
    assert read(("_charset_", charset)).unknown is None


@pytest.mark.parametrize("charset", ["windows-1252", "\u00e9"])
def test_another_charset_than_the_one_that_is_read_is_told(charset):
    told = read(("_charset_", charset)).unknown
    shown = charset.encode("ascii", "backslashreplace").decode()
    assert told == f"_charset_ is {shown!r}, but the texts of a form are read as UTF-8"
