from __future__ import annotations

from relay.admin.api import Api
from relay.admin.openapi import Endpoint, openapi
from relay.admin.routes import ROUTES


def operation(*endpoint):
    [(_, methods)] = openapi([Endpoint(*endpoint)], "1.2.3")["paths"].items()
    [(_, found)] = methods.items()
    return found


def test_parameters_of_query_and_path_are_told():
    found = operation("DELETE", "/v1/peers/{port}", "End it", Api.disconnect, {"reason": "why"})
    assert [(p["name"], p["in"], p.get("required", False)) for p in found["parameters"]] == [
        ("reason", "query", False),
        ("port", "path", True),
    ]
    assert found["operationId"] == "disconnect"
    assert "requestBody" not in found


def test_fields_of_the_body_are_all_there_may_be():
    found = operation("POST", "/v1/bans", "Ban", Api.ban, {}, {"kind": "which"})
    schema = found["requestBody"]["content"]["application/json"]["schema"]
    assert schema["properties"] == {"kind": {"description": "which"}}
    assert schema["additionalProperties"] is False


def test_each_operation_has_a_name_of_its_own():
    paths = openapi(ROUTES, "1.2.3")["paths"]
    names = [found["operationId"] for methods in paths.values() for found in methods.values()]
    assert len(names) == len(set(names)) == len(ROUTES)
    assert {"drain", "drain_off"} <= set(names)
    assert "/v1/tokens/{id}/revoke" in paths
