"""Values that must never be shown: they are masked wherever a person or a log could read them."""

import re
from collections.abc import Iterator
from typing import Final, final

from msgspec import Struct

__all__ = ["MASK", "Secret", "SecretUrl", "is_secret_property", "secrets_of"]

MASK: Final = "***"

_SECRET_PROPERTY = re.compile(r"(^|\.)(password|passphrase|secret)$|^sasl\.oauthbearer\.config$|\.key\.pem$|^ssl_key$")
_URL_PASSWORD = re.compile(r"(?<=://)(?P<user>[^:@/]*):.*@(?=[^@]*$)")


class Secret:
    """A text that shows itself only through `reveal`; printing, formatting and comparing logs see the mask."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text itself, for the client that needs it."""
        return self._text

    @property
    def masked(self) -> str:
        """What may be shown: the mask, or nothing where nothing is set."""
        return MASK if self._text else ""

    def __str__(self) -> str:
        return self.masked

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.masked!r})"

    def __format__(self, spec: str) -> str:
        return format(self.masked, spec)

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


@final
class SecretUrl(Secret):
    """A URL whose password is masked and whose rest may be read."""

    __slots__ = ()

    @property
    def masked(self) -> str:
        """The URL with the mask in place of its password."""
        return _URL_PASSWORD.sub(rf"\g<user>:{MASK}@", self._text)


def is_secret_property(name: str) -> bool:
    """Tell whether a librdkafka property of this name holds a password, a secret or a private key."""
    return bool(_SECRET_PROPERTY.search(name))


def secrets_of(value: object) -> Iterator[Secret]:
    """Yield every secret among the settings."""
    if isinstance(value, Secret):
        yield value
    elif isinstance(value, Struct):
        for name in value.__struct_fields__:
            yield from secrets_of(getattr(value, name))
    elif isinstance(value, dict):
        for inner in value.values():
            yield from secrets_of(inner)
