"""Messages about invalid fields of requests and settings, in our words instead of the validator's."""

from collections.abc import Sequence
from typing import Any

_MAX_PROBLEMS = 10

# By type of pydantic's problem; what stands in braces is in its context. Problems of our own validators are in ours.
_WORDS = {
    "missing": "it is missing",
    "string_type": "must be a text",
    "string_unicode": "must be a text of whole characters",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must be of the form {pattern}",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a number, and neither infinite nor NaN",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number of fewer digits",
    "int_from_float": "must be a whole number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "list_type": "must be a list",
    "too_short": "must hold at least {min_length} items",
    "too_long": "must hold at most {max_length} items",
    "dict_type": "must be a JSON object",
    "model_type": "must be a JSON object",
    "dataclass_type": "must be a JSON object",
    "model_attributes_type": "must be a JSON object",
    "json_invalid": "this is not JSON ({error})",
    "union_tag_invalid": "{discriminator} must be one of {expected_tags}, not '{tag}'",
    "union_tag_not_found": "{discriminator} is missing",
    "value_error": "{error}",
}


def problem_in_words(problem: Any) -> str:
    """The problem of a value, without its name.

    Args:
        problem: as in pydantic, with ``type``, ``msg`` and ``ctx``.

    >>> problem_in_words({"type": "greater_than_equal", "msg": "Input should be …", "ctx": {"ge": 1e-06}})
    'must be at least 0.000001'
    """
    words, context = _WORDS.get(problem.get("type")), problem.get("ctx", {})
    if words is None:
        return str(problem["msg"])
    if context.get("min_length") == 1:
        return "must not be empty"
    return words.format(**{name: _plain(value) for name, value in context.items()})


def problems_in_words(problems: Sequence[Any]) -> str:
    """One sentence for the problems that pydantic found, each with its field; only the first of many."""
    sentences = []
    for problem in problems[:_MAX_PROBLEMS]:
        where = ".".join(str(part) for part in problem["loc"] if part not in ("body", "query"))
        words = problem_in_words(problem)
        sentences.append(f"{where}: {words}" if where else words)
    if len(problems) > _MAX_PROBLEMS:
        sentences.append(f"and {len(problems) - _MAX_PROBLEMS} more")
    return "; ".join(sentences)


def _plain(value: Any) -> Any:
    """Numbers without an exponent."""
    return f"{value:f}".rstrip("0").rstrip(".") if isinstance(value, float) else value
