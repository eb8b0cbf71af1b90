"""What may be asked of an API, as a table's lines and as an OpenAPI document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from starlette.requests import Request
    from starlette.responses import Response


class Endpoint(NamedTuple):
    """One thing that may be asked."""

    method: str
    path: str
    summary: str
    handle: Callable[[Any, Request], Awaitable[Response]]
    query: dict[str, str] = {}  # noqa: RUF012 - never changed
    """Parameters of the query, with what they are for."""
    body: dict[str, str] = {}  # noqa: RUF012 - same
    """Fields of the JSON object in the body."""


def openapi(endpoints: Iterable[Endpoint], version: str) -> dict[str, Any]:
    """Describe an API as OpenAPI 3.1."""
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        path = endpoint.path.replace(":path}", "}")
        parameters: list[dict[str, Any]] = [
            {"name": name, "in": "query", "description": what, "schema": {"type": "string"}}
            for name, what in endpoint.query.items()
        ]
        parameters += [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in ("port", "id")
            if f"{{{name}}}" in path
        ]
        what = endpoint.handle.__name__
        undoes = endpoint.method == "DELETE" and path == "/v1/drain"
        operation: dict[str, Any] = {
            "operationId": f"{what}_off" if undoes else what,
            "summary": endpoint.summary,
            "responses": {
                "200": {"description": "done"},
                "default": {"description": "an error, with its reason"},
            },
        }
        if parameters:
            operation["parameters"] = parameters
        if endpoint.body:
            properties = {name: {"description": what} for name, what in endpoint.body.items()}
            schema = {"type": "object", "properties": properties, "additionalProperties": False}
            operation["requestBody"] = {"content": {"application/json": {"schema": schema}}}
        paths.setdefault(path, {})[endpoint.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "vmrelay admin API", "version": version},
        "paths": paths,
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }
