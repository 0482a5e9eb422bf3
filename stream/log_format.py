"""The form of a log line: one JSON document, without card data, amounts, secrets or ids in the clear.

What may stand in a line is decided here and not at the place of an accident: secrets of the settings are masked
wherever they turn up, and of an exception that is not one of ours only the type, the place and the bare wording are
shown, because its message may quote the data it tripped over.
"""

import hashlib
import hmac
import json
import logging
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from secrets import token_bytes
from traceback import format_tb
from typing import Any, Final
from urllib.parse import urlsplit

import orjson
from confluent_kafka import KafkaException

from models.errors import ModelError
from state.errors import StateError
from stream.errors import FraudstreamError
from stream.secret import MASK, Secret, SecretUrl

__all__ = ["JsonFormatter", "hash_id", "id_key"]

HASH_LENGTH: Final = 16  # 64 bits: enough to follow one id through the logs

SHORTEST_HIDDEN: Final = 4  # hiding a shorter text would garble the lines and hide little

#: Errors whose sentences are written for people and quote nothing of a record.
OURS: Final = (FraudstreamError, StateError, ModelError, OSError, KafkaException)

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "event"}
#: What stands before the id in a key of a store: namespace and partition, in Redis in braces and followed by a token.
_KEY_STEM: Final = re.compile(r"[^{]*\{[0-9a-f]{16}:\d+\}:[\w-]{12}:|.*?:[0-9a-f]{16}:\d+:", re.ASCII)
# An apostrophe inside a word opens no quotation.
_QUOTED_OR_NUMBER: Final = re.compile(r"""(?<!\w)b?(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")|\d(?:[\d.,]*\d)?""")


def id_key(secret: Secret) -> bytes:
    """Return the key ids are hashed with: the setting's, or a random one that ends with the process."""
    return secret.reveal().encode() or token_bytes(32)


def hash_id(key: bytes, text: str) -> str:
    """Return 16 hex digits that stand for an id: HMAC-SHA256, so that nobody without the key can try ids out."""
    return hmac.new(key, text.encode(errors="surrogatepass"), hashlib.sha256).hexdigest()[:HASH_LENGTH]


class JsonFormatter(logging.Formatter):
    """time (RFC 3339, UTC), level, logger, event, message, then whatever came in `extra`.

    secrets: texts that must not appear, wherever they come from. key: see id_key.
    """

    def __init__(self, key: bytes, secrets: Iterable[Secret] = ()) -> None:
        super().__init__()
        self._key = key
        self._masks = {_inside_json(text): MASK for secret in secrets for text in _texts(secret)}

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, without its end."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields: dict[str, Any] = {
            "time": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": getattr(record, "event", "message"),
            "message": record.getMessage(),
            **{name: value for name, value in vars(record).items() if name not in _STANDARD},
        }
        args = record.args if isinstance(record.args, tuple) else ()
        named = [one for one in args if isinstance(one, BaseException)]
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            fields["error"] = type(error).__name__
            fields["traceback"] = "".join(_traceback(error))
            named.append(error)
        masks = self._masks | {_inside_json(key): self._hashed(key) for one in named for key in _store_keys(one)}
        line = _dumps(fields)
        for text, mask in masks.items():
            line = line.replace(text, mask)
        return line

    def _hashed(self, store_key: str) -> str:
        """Hash the user's id in a key, as it is hashed elsewhere; all of a key whose parts cannot be told apart."""
        stem = _KEY_STEM.match(store_key)
        start = stem.end() if stem else 0
        return _inside_json(store_key[:start]) + hash_id(self._key, store_key[start:])


def _traceback(error: BaseException) -> Iterator[str]:
    """Yield the lines of a traceback, causes first, each message as far as it may be shown."""
    for one in reversed(list(_chain(error))):
        yield from format_tb(one.__traceback__)
        yield f"{type(one).__name__}: {_shown(one)}\n"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _shown(error: BaseException) -> str:
    return str(error) if isinstance(error, OURS) else _QUOTED_OR_NUMBER.sub("…", str(error))


def _store_keys(error: BaseException) -> list[str]:
    """Return keys of stored records that errors name: they hold a user's id."""
    keys = (getattr(one, "key", None) for one in _chain(error))
    return [key for key in keys if isinstance(key, str) and key]


def _texts(secret: Secret) -> list[str]:
    """Return what must be hidden of a secret: a URL's password, or all of it; too short a text would hide the rest."""
    text = urlsplit(secret.reveal()).password if isinstance(secret, SecretUrl) else secret.reveal()
    return [text] if text and len(text) >= SHORTEST_HIDDEN else []


def _inside_json(text: str) -> str:
    return _dumps(text)[1:-1]


def _dumps(value: Any) -> str:
    try:
        return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # a lone surrogate is no UTF-8
        return json.dumps(value, default=str)
