"""Text fields of forms as browsers and careless clients send them."""

import asyncio

import pytest
from starlette.datastructures import FormData

from backend.api.forms import metas_of, read_fields
from backend.api.schemas.datasets import UploadFields
from backend.api.schemas.inspection import FitFields, InferFields
from backend.common.errors import InvalidRequest
from tests.api.sending import IDS

FIELDS = {**IDS, "mm_per_px": "0.2"}


def read(*more, model=InferFields):
    """The fields of a form with these beside or before the usual ones."""
    return asyncio.run(read_fields(FormData([*FIELDS.items(), *more]), model))


@pytest.mark.parametrize("charset", ["UTF-8", "utf-8", "us-ascii", ""])
def test_the_charset_field_of_browsers_is_known(charset):
    assert read(("_charset_", charset)).doubts is None


@pytest.mark.parametrize("charset", ["windows-1252", "\u00e9"])
def test_another_charset_than_the_one_that_is_read_is_told(charset):
    told = read(("_charset_", charset)).doubts
    shown = charset.encode("ascii", "backslashreplace").decode()
    assert told == f"_charset_ is {shown!r}, but the texts of a form are read as UTF-8"


@pytest.mark.parametrize(
    ("name", "sent", "told"),
    [
        ("role_id", ["Master1", "Master2"], "role_id was sent 2 times with different values ('Master1', 'Master2')"),
        ("mm_per_px", ["0.2", "0.3", "0.2"], "mm_per_px was sent 3 times with different values ('0.2', '0.3')"),
        ("shape", ["", '{"a":1}', "null"], "shape was sent 3 times with different values ("),
    ],
)
def test_a_field_with_two_values_is_refused_with_both(name, sent, told):
    form = FormData([*((key, text) for key, text in FIELDS.items() if key != name), *((name, text) for text in sent)])
    with pytest.raises(InvalidRequest) as caught:
        asyncio.run(read_fields(form, InferFields))
    assert str(caught.value).startswith(told)
    assert str(caught.value).endswith("; send it once")


def test_a_field_that_is_sent_twice_with_one_value_is_that_value():
    fields = read(("role_id", "Master1"), ("mm_per_px", "0.2"))
    assert (fields.role_id, fields.doubts) == ("Master1", None)


@pytest.mark.parametrize("sent", [["line 1", ""], ["", "line 1"]])
def test_of_a_value_and_nothing_the_value_counts(sent):
    fields = read(*(("recipe_id", text) for text in sent))
    values = ", ".join(map(repr, sent))
    assert fields.recipe_id == "line 1"
    assert fields.doubts == f"recipe_id was sent 2 times with different values ({values}): 'line 1' is used"


@pytest.mark.parametrize("sent", [["false", "true"], ["true", "false"]])
def test_of_a_switch_the_last_value_counts_and_is_told(sent):
    fields = read(*(("append", text) for text in sent), model=FitFields)
    assert fields.append is (sent[-1] == "true")
    assert fields.doubts.endswith(f": '{sent[-1]}' is used")


def test_ids_of_an_upload_are_not_guessed_either():
    with pytest.raises(InvalidRequest, match="roi_id was sent 2 times"):
        read(("roi_id", "Other"), model=UploadFields)


@pytest.mark.parametrize("text", ['{"mm_per_px": 0.2, "mm_per_px": 0.3}', '[{"a": {"b": 1, "b": null}}]'])
def test_metadata_with_two_values_of_one_member_is_refused(text):
    with pytest.raises(InvalidRequest, match="was sent several times with different values"):
        asyncio.run(metas_of(FormData([("metas", text)])))
