"""Finds the user id in a transaction's value, and reads nothing else of it."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from stream.mapping import Mapping

__all__ = ["NoUserError", "UserFinder"]


class NoUserError(Exception):
    """A value without a user id; error, field and detail are those of a dead letter."""

    def __init__(self, error: str, field: str, detail: str) -> None:
        super().__init__(f"{field} {detail}" if field else detail)
        self.error = error
        self.field = field
        self.detail = detail


class UserFinder:
    """Called with a record's value, returns its user id in UTF-8: the key the record must have."""

    def __init__(self, mapping: Mapping) -> None:
        self._names = mapping.names("user_id")
        attributes = [f"field_{at}" for at in range(len(self._names))]
        kind = str | Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)] | None
        self._type = msgspec.defstruct(
            "User",
            [(attribute, kind, None) for attribute in attributes],
            rename=dict(zip(attributes, self._names, strict=True)),
            gc=False,
        )
        self._decode = msgspec.json.Decoder(self._type).decode

    def __call__(self, value: bytes | None) -> bytes:
        """Return the user id; raises NoUserError."""
        if not value:
            raise NoUserError("empty_value", "", "the record has no value")
        for user in msgspec.structs.astuple(self._parse(value)):
            if user is not None and user != "":
                return str(user).encode()
        raise NoUserError("missing_field", self._names[0], "is missing")

    def _parse(self, value: bytes) -> Any:
        try:
            return self._decode(value)
        except msgspec.ValidationError as error:
            name = next((name for name in self._names if f"`$.{name}`" in str(error)), "")
            detail = "must be a text or a 64-bit whole number" if name else "the value is not a JSON object"
            raise NoUserError("wrong_type", name, detail) from None
        except UnicodeDecodeError:
            raise NoUserError("invalid_utf8", "", "the value is not UTF-8 text") from None
        except RecursionError:
            raise NoUserError("too_deep", "", "the value is nested too deeply") from None
        except msgspec.DecodeError:
            raise NoUserError("invalid_json", "", "the value is not one JSON document") from None
