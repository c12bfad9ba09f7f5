"""What is wrong with a field, to a person: every kind of problem that our models can have, in words of ours."""

import json
import re

import pytest
from pydantic import TypeAdapter, ValidationError

from backend.api.schemas.calibration import CalibrateRequest
from backend.api.schemas.common import RoiIds
from backend.api.schemas.datasets import CalibrateDatasetRequest, InferDatasetRequest, SampleClass, SampleName
from backend.api.schemas.drift import DriftResetRequest
from backend.api.schemas.inspection import ExplainFields, FitFields, InferFields
from backend.api.schemas.versions import RollbackRequest
from backend.common.config import load_settings
from backend.common.errors import ConfigError, InvalidShape
from backend.common.field_problems import _WORDS, problem_in_words, problems_in_words
from backend.roi_mask import parse_shape

FORMS = (FitFields, InferFields, ExplainFields)
QUERIES = (RoiIds, SampleClass, SampleName)
BODIES = (CalibrateRequest, CalibrateDatasetRequest, InferDatasetRequest, RollbackRequest, DriftResetRequest)
GOOD = {"role_id": "a", "roi_id": "b", "mm_per_px": 0.2, "label": "ok", "filename": "x", "ok_scores": [0.5]}
BAD_TEXTS = ["", " ", "x", "x" * 2000, "-1", "0", "0,2", "1.5", "nan", "inf", "1e300", "9" * 5000, "\ufeff1", "a\nb"]
BAD_VALUES = [*BAD_TEXTS, None, True, False, -1, 0, 1.5, 1e300, 10**400, [], {}, [None], [1e300], ["x"], [[]]]
BAD_VALUES += [[float("nan")], float("inf"), "\ud800", ["ok"] * 200, [{}] * 3]
VALIDATORS_WORDS = re.compile(
    "Input should|Value error|Field required|[A-Z][a-z]+ should|discriminator|valid |validation|expected tags|"
    "[Uu]nable to|Assertion|instance of|function"
)


def found(validate):
    try:
        validate()
    except ValidationError as exc:
        return exc.errors()
    return []


def problems_of_models():
    for model in (*FORMS, *QUERIES, *BODIES):
        fields = {name: value for name, value in GOOD.items() if name in model.model_fields}
        texts = {name: value if isinstance(value, list) else str(value) for name, value in fields.items()}
        yield from found(lambda model=model: model.model_validate({}))
        for name in [*model.model_fields, f"{next(iter(model.model_fields))}s", "verzion", "referenze"]:
            for value in BAD_TEXTS if model in (*FORMS, *QUERIES) else BAD_VALUES:
                yield from found(lambda model=model, sent={**texts, name: value}: model.model_validate(sent))
                if model in BODIES:
                    as_json = json.dumps({**fields, name: value})
                    yield from found(lambda model=model, text=as_json: model.model_validate_json(text))
    for model in BODIES:
        for text in ("", "{", "[]", "1", '"x"', "null", '{"role_id":}', "[" * 50):
            yield from found(lambda model=model, text=text: model.model_validate_json(text))
        for value in (b"bytes", [], 1, None):
            yield from found(
                lambda model=model, value=value: TypeAdapter(model).validate_python(value, from_attributes=True)
            )


def problems_of_shapes():
    shapes = {
        "rect": {"x": 0, "y": 0, "w": 5, "h": 5},
        "circle": {"cx": 5, "cy": 5, "r": 5},
        "annulus": {"cx": 5, "cy": 5, "r": 5, "r_inner": 2},
    }
    for kind, numbers in shapes.items():
        yield json.dumps({"kind": kind})
        for name in (*numbers, "kind"):
            yield from (json.dumps({"kind": kind, **numbers, name: value}) for value in BAD_VALUES)
    yield from ('{"x":1}', "[]", "1", '"rect"', "{", "x", '{"kind":"star"}', '{"kind":["rect"]}')
    yield '{"kind":"annulus","cx":5,"cy":5,"r":5,"r_inner":7}'


def test_no_problem_of_a_request_is_told_in_the_validators_words():
    kinds = {}
    for problem in problems_of_models():
        words = problem_in_words(problem)
        assert words, problem
        if problem["type"] != "unknown_members":  # these quote the names that were sent
            assert not VALIDATORS_WORDS.search(words), problem
        assert not (isinstance(problem["input"], str) and "items" in words), problem
        kinds[problem["type"]] = words
    ours = {"number", "unseen", "unknown_members"} & set(kinds)
    assert set(kinds) - ours <= set(_WORDS), "each kind has words of its own"
    assert {"missing", "float_parsing", "bool_parsing", "literal_error", "too_long", "json_invalid"} <= set(kinds)


def test_no_problem_of_a_shape_is_told_in_the_validators_words():
    told = set()
    for text in problems_of_shapes():
        try:
            parse_shape(text)
        except InvalidShape as exc:
            told.add(re.sub(r"not '.*'$", "", str(exc)))
    assert len(told) > 30
    for words in told:
        assert words.startswith("shape: ")
        assert not VALIDATORS_WORDS.search(words), words
    assert "shape: annulus: r_inner must be smaller than r" in told
    assert "shape: 'kind' is missing" in told
    assert "shape: 'kind' must be one of 'rect', 'circle', 'annulus', " in told


def test_no_setting_is_refused_in_the_validators_words():
    for refused in (
        {"score_percentile": "high"},
        {"input_size": "1.5"},
        {"max_queue": "0"},
        {"trace": "maybe"},
        {"device": "tpu"},
        {"allowed_hosts": "http://x"},
        {"weights_sha256": "x"},
        {"model_name": "other"},
        {"blur_sigma": "nan"},
    ):
        with pytest.raises(ConfigError) as caught:
            load_settings(**refused)
        words = str(caught.value).partition(": ")[2]
        assert not VALIDATORS_WORDS.search(words), words


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        ({"type": "missing", "ctx": {}}, "it is missing"),
        ({"type": "less_than_equal", "ctx": {"le": 1e12}}, "must be at most 1000000000000"),
        ({"type": "greater_than", "ctx": {"gt": 0}}, "must be above 0"),
        ({"type": "greater_than", "ctx": {"gt": 0.5}}, "must be above 0.5"),
        ({"type": "string_too_short", "ctx": {"min_length": 1}}, "must not be empty"),
        ({"type": "string_too_short", "ctx": {"min_length": 3}}, "must have at least 3 characters"),
        ({"type": "value_error", "ctx": {"error": ValueError("send x and y, or neither")}}, "send x and y, or neither"),
        ({"type": "of_ours", "msg": "must be odd"}, "must be odd"),
    ],
)
def test_a_problem_is_told_with_its_numbers(problem, words):
    assert problem_in_words(problem) == words


def test_many_problems_are_told_by_the_first_ten():
    problems = [{"type": "missing", "loc": ("body", "scores", number)} for number in range(25)]
    told = problems_in_words(problems)
    assert told.startswith("scores.0: it is missing; scores.1: ")
    assert told.endswith("scores.9: it is missing; and 15 more")
    assert problems_in_words([{"type": "missing", "loc": ("body",)}]) == "it is missing"
