"""What ``/docs`` shows beyond the schemas: the bodies that routes read themselves, and the API keys."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from backend.api.paths import OPEN_PATHS


def declare_keys(app: FastAPI) -> None:
    """Let the document of `app` say that all but ``/health`` and ``/ready`` needs an API key."""
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
    optional: dict[str, str] | None = None,
    *,
    files_required: bool = True,
) -> dict[str, Any]:
    """The ``requestBody`` of a multipart endpoint that reads its form itself.

    Args:
        fields: the text fields.
        files: description by name of the file fields; names in the plural take several files.
        optional: description by name of further JSON parts.
        files_required: whether the files must be there.
    """
    schema = fields.model_json_schema()
    binary = {"type": "string", "format": "binary"}
    for name, description in files.items():
        several = {"type": "array", "items": binary, "minItems": 1}
        schema["properties"][name] = {**(several if name.endswith("s") else binary), "description": description}
    for name, description in (optional or {}).items():
        parts = {"type": "array", "items": {"type": "string", "contentMediaType": "application/json"}}
        schema["properties"][name] = {**parts, "description": description}
    schema["required"] = [*schema["required"], *(files if files_required else ())]
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}
