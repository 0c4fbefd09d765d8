"""JSON Schemas of types, for `/openapi.json`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from cabrank import foreign

REF = "#/components/schemas/{name}"


class Schemas:
    """The schemas of types; those with a name stand in `components`. A type that has no schema is described as anything."""

    def __init__(self, kinds: Iterable[Any]) -> None:
        self.components: dict[str, Any] = {}
        known = [kind for kind in kinds if self._has_one(kind)]
        made: Any = msgspec.json.schema_components(known, schema_hook=self._foreign, ref_template=REF)
        schemas, components = made
        self._schemas: list[tuple[Any, dict[str, Any]]] = list(zip(known, schemas, strict=True))
        self.components |= components

    def of(self, kind: Any) -> Mapping[str, Any]:
        """The schema of a type, or where it stands."""
        anything: dict[str, Any] = {}
        return next((schema for its, schema in self._schemas if its is kind), anything)

    def parameters(self, kind: type[msgspec.Struct]) -> list[dict[str, Any]]:
        """The fields of a struct as query parameters."""
        made: Any = msgspec.json.schema_components([kind], ref_template=REF)
        properties = made[1].pop(kind.__name__)["properties"]
        self.components = made[1] | self.components
        return [_parameter(name, schema) for name, schema in properties.items()]

    def _has_one(self, kind: Any) -> bool:
        try:
            msgspec.json.schema(kind, schema_hook=self._foreign)
        except TypeError:
            return False
        return True

    def _foreign(self, kind: Any) -> dict[str, Any]:
        if not foreign.is_model(kind):
            raise NotImplementedError
        schema, below = foreign.schema(kind, REF)
        self.components.update(below)
        self.components[kind.__name__] = schema
        return {"$ref": REF.format(name=kind.__name__)}


def _parameter(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """A query parameter. It is left out rather than null."""
    said = {key: value for key, value in schema.items() if key not in {"description", "default", "anyOf"}}
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    described = next((kind["description"] for kind in (schema, *kinds) if "description" in kind), "")
    whole = said | (kinds[0] if len(kinds) == 1 else {"anyOf": kinds} if kinds else {})
    return {"name": name, "in": "query", "description": described, "schema": whole}
