"""Additions to the schemas for ``/docs``: the bodies that routes read themselves, and the API keys."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from backend.api.paths import OPEN_PATHS

# In the order in which they are needed.
TAGS = [
    {"name": "inspection", "description": "Fit a ROI on good images, calibrate it, infer images, and ask for reasons."},
    {"name": "data sets", "description": "Store images of a ROI, and calibrate and infer from them."},
    {
        "name": "state",
        "description": "See the state of the service, what is stored for a ROI, and whether production drifts.",
    },
    {"name": "layouts", "description": "Store what a GUI needs for a recipe: its layout and pictures."},
    {"name": "versions", "description": "List the earlier versions of a model, and roll back to one."},
]


def show_examples(app: FastAPI) -> None:
    """Give ``/docs`` examples of requests that work unchanged, one after the other.

    The page takes the examples of form fields from their schemas, but not those of parameters. From the schema of a
    JSON body it makes an example with every optional member.
    """
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        document = plain()
        for operation in (operation for path in document["paths"].values() for operation in path.values()):
            for parameter in operation.get("parameters", ()):
                if (example := _example_of(parameter["schema"])) is not None:
                    parameter["example"] = example
            body = operation.get("requestBody", {"content": {}})["content"].get("application/json")
            if body is not None and "example" not in body:
                reference = body["schema"].get("$ref", "").rpartition("/")[2]
                schema = document["components"]["schemas"][reference] if reference else body["schema"]
                examples = {name: _example_of(value) for name, value in schema["properties"].items()}
                body["example"] = {name: example for name, example in examples.items() if example is not None}
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI says


def _example_of(schema: dict[str, Any]) -> Any:
    return next(iter(schema.get("examples", ())), None)


def declare_keys(app: FastAPI) -> None:
    """Declare in the document of `app` that everything except ``/health`` and ``/ready`` needs an API key."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        document = plain()
        document["components"]["securitySchemes"] = {
            "X-API-Key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            "Bearer": {"type": "http", "scheme": "bearer"},
        }
        document["security"] = [{"X-API-Key": []}, {"Bearer": []}]
        for path in OPEN_PATHS:
            document["paths"][path]["get"]["security"] = [{}, *document["security"]]
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI says


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """The ``requestBody`` of an endpoint that reads its JSON itself."""
    schema = model.model_json_schema()
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def multipart(
    fields: type[BaseModel],
    files: dict[str, str],
    optional: dict[str, tuple[str, str]] | None = None,
    *,
    files_required: bool = True,
) -> dict[str, Any]:
    """The ``requestBody`` of a multipart endpoint that reads its form itself.

    Args:
        fields: the text fields.
        files: description by name of the file fields; names in the plural take several files.
        optional: description and example by name of further JSON parts.
        files_required: whether the files must be there.
    """
    schema = fields.model_json_schema()
    for field in schema["properties"].values():
        if field.get("examples") == [None]:  # the page would send the text "null", and without an example a random one
            field["examples"] = [""]
    binary = {"type": "string", "format": "binary"}
    for name, description in files.items():
        several = {"type": "array", "items": binary, "minItems": 1}
        schema["properties"][name] = {**(several if name.endswith("s") else binary), "description": description}
    for name, (description, example) in (optional or {}).items():
        parts = {"type": "array", "items": {"type": "string", "contentMediaType": "application/json"}}
        schema["properties"][name] = {**parts, "description": description, "examples": [[example]]}
    schema["required"] = [*schema["required"], *(files if files_required else ())]
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}
