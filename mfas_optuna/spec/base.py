"""What every table of a study file has in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

MAX_SEED = 2**63 - 1

Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]


class Settings(BaseModel):
    """A table whose fields are documented, checked strictly and cannot be changed."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    absent_by_default: ClassVar[frozenset[str]] = frozenset()
    """Fields that are left out when they are None: so what does not use them keeps its fingerprint."""

    @model_serializer(mode="wrap")
    def _without_absent(self, handler: SerializerFunctionWrapHandler) -> Mapping[str, Any]:
        values: dict[str, Any] = handler(self)
        return {
            name: value for name, value in values.items() if value is not None or name not in self.absent_by_default
        }
