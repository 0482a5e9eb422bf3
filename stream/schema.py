"""Schemas of what is read and written, made from the types that read and write it.

JSON Schema (2020-12) for transactions, decisions, the headers of dead letters, and what goes to and from the monitor;
an AsyncAPI 3 document of the topics.
"""

import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import msgspec
import orjson

from stream.alert_record import Alert
from stream.deadletter import DEAD_LETTER_HEADERS, ERRORS
from stream.decision import Decision
from stream.joiner_records import Label
from stream.labelled_record import LabelledDecision
from stream.mapping import REQUIRED, Limits, Mapping
from stream.money import DECIMAL_TEXT
from stream.sections import TopicSettings
from stream.settings import load_settings
from stream.telemetry_record import Telemetry
from stream.transaction import Layout

__all__ = [
    "asyncapi",
    "dead_letter_headers_schema",
    "record_schema",
    "transaction_schema",
    "write_schemas",
]

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_COMPONENTS: Final = "#/components/schemas/{name}"
_KEY: Final = {"kafka": {"key": {"type": "string", "description": "The user id, as UTF-8"}}}
_WORKER_KEY: Final = {"kafka": {"key": {"type": "string", "description": "The worker's name, as UTF-8"}}}
_SIGNAL_KEY: Final = {"kafka": {"key": {"type": "string", "description": "The signal's name, as UTF-8"}}}

#: JSON records besides the transaction, whose schema depends on the settings, by the name of their file.
_RECORDS: Final = {
    "decision": Decision,
    "telemetry": Telemetry,
    "label": Label,
    "labelled": LabelledDecision,
    "alert": Alert,
}

_TOPICS: Final = (
    *("transactions", "decisions", "features", "dead_letters"),
    *("telemetry", "labels", "labelled", "alerts"),
)
#: Who does what: process, action, topic.
_OPERATIONS: Final = (
    ("worker", "receive", "transactions"),
    ("worker", "send", "decisions"),
    ("worker", "send", "features"),
    ("worker", "send", "dead_letters"),
    ("worker", "send", "telemetry"),
    ("monitor", "receive", "decisions"),
    ("monitor", "receive", "labels"),
    ("monitor", "receive", "telemetry"),
    ("monitor", "receive", "labelled"),
    ("monitor", "send", "labelled"),
    ("monitor", "send", "alerts"),
)


def transaction_schema(mapping: Mapping, limits: Limits) -> dict[str, Any]:
    """Return the schema of a transaction under the user's own names.

    Rules that need more than the document are not in it: the record's key, its timestamp, decimals by currency.
    """
    return {"$schema": _DIALECT, **_transaction(mapping, limits)}


def record_schema(name: str) -> dict[str, Any]:
    """Return the schema of a decision, telemetry, label, labelled or alert."""
    return {"$schema": _DIALECT, **msgspec.json.schema(_RECORDS[name])}


def dead_letter_headers_schema() -> dict[str, Any]:
    """Return the schema of a dead letter's headers, read as an object of UTF-8 texts; its value is as received."""
    return {"$schema": _DIALECT, **_headers()}


def asyncapi(topics: TopicSettings, mapping: Mapping, limits: Limits) -> dict[str, Any]:
    """Return the AsyncAPI 3 document of all topics, seen from the worker and the monitor."""
    _, records = msgspec.json.schema_components(_RECORDS.values(), ref_template=_COMPONENTS)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "fraudstream",
            "version": version("fraudstream"),
            "description": "Card transactions in, fraud decisions out.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {
            name: {"address": address, "messages": {name: {"$ref": f"#/components/messages/{name}"}}}
            for name, address in _channels(topics).items()
        },
        "operations": {
            f"{process}_{'reads' if action == 'receive' else 'writes'}_{name}": {
                "action": action,
                "channel": {"$ref": f"#/channels/{name}"},
                "messages": [{"$ref": f"#/channels/{name}/messages/{name}"}],
            }
            for process, action, name in _OPERATIONS
        },
        "components": {
            "messages": _messages(),
            "schemas": {"Transaction": _transaction(mapping, limits), **records, "DeadLetterHeaders": _headers()},
        },
    }


def write_schemas(directory: Path, topics: TopicSettings, mapping: Mapping, limits: Limits) -> list[Path]:
    """Write every schema and the AsyncAPI document into a directory, which is made; return their paths."""
    documents = {
        "transaction.schema.json": transaction_schema(mapping, limits),
        **{f"{name}.schema.json": record_schema(name) for name in _RECORDS},
        "dead_letter_headers.schema.json": dead_letter_headers_schema(),
        "asyncapi.json": asyncapi(topics, mapping, limits),
    }
    directory.mkdir(parents=True, exist_ok=True)
    for name, document in documents.items():
        text = orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        (directory / name).write_bytes(text)
    return [directory / name for name in documents]


def _channels(topics: TopicSettings) -> dict[str, str]:
    return {name: getattr(topics, name) for name in _TOPICS}


def _messages() -> dict[str, Any]:
    return {
        "transactions": {
            "summary": "One card transaction, keyed by user",
            "payload": {"$ref": "#/components/schemas/Transaction"},
            "bindings": _KEY,
        },
        "decisions": {
            "summary": "One decision, on the same partition number as its transaction; no headers",
            "payload": {"$ref": "#/components/schemas/Decision"},
            "bindings": _KEY,
        },
        "features": {
            "summary": "The vectors of one partition's share of a batch, as an Arrow IPC stream",
            "contentType": "application/vnd.apache.arrow.stream",
        },
        "dead_letters": {
            "summary": "A record that is no transaction: key and value as received, the reason in the headers",
            "contentType": "application/octet-stream",
            "headers": {"$ref": "#/components/schemas/DeadLetterHeaders"},
        },
        "telemetry": {
            "summary": "What one worker counted in one interval; one partition",
            "payload": {"$ref": "#/components/schemas/Telemetry"},
            "bindings": _WORKER_KEY,
        },
        "labels": {
            "summary": "What a transaction turned out to be, as late as it became known",
            "payload": {"$ref": "#/components/schemas/Label"},
            "bindings": _KEY,
        },
        "labelled": {
            "summary": "A decision whose truth is known; one partition",
            "payload": {"$ref": "#/components/schemas/LabelledDecision"},
            "bindings": _KEY,
        },
        "alerts": {
            "summary": "Something began to be wrong, or is well again; one partition",
            "payload": {"$ref": "#/components/schemas/Alert"},
            "bindings": _SIGNAL_KEY,
        },
    }


def _transaction(mapping: Mapping, limits: Limits) -> dict[str, Any]:
    """Inline the type's schema; a field with alternatives is required as one of them."""
    _, components = msgspec.json.schema_components([Layout(mapping, limits).type])
    schema: dict[str, Any] = components["Transaction"]
    kinds = {
        theirs: [option for option in kind.get("anyOf", [kind]) if option.get("type") == "string"]
        for theirs, kind in schema["properties"].items()
    }
    for theirs in schema.get("required", ()):
        for text in kinds[theirs]:
            text["minLength"] = 1
    for theirs in mapping.names("amount"):
        for text in kinds[theirs]:
            text["pattern"] = f"^{DECIMAL_TEXT}$"
    choices = [
        {"anyOf": [{"required": [theirs]} for theirs in mapping.names(ours)]}
        for ours in REQUIRED
        if len(mapping.names(ours)) > 1 and ours not in mapping.defaults
    ]
    return {**schema, "allOf": choices} if choices else schema


def _headers() -> dict[str, Any]:
    properties: dict[str, dict[str, Any]] = {
        name: {"type": "string", "description": meaning} for name, meaning in DEAD_LETTER_HEADERS.items()
    }
    properties["error"]["enum"] = list(ERRORS)
    for name in ("source.partition", "source.offset", "source.timestamp"):
        properties[name]["pattern"] = "^-?[0-9]+$"
    return {"title": "DeadLetterHeaders", "type": "object", "properties": properties, "required": [*properties]}


def main(arguments: list[str]) -> int:
    """Write the documents for the settings of the environment: python -m stream.schema DIRECTORY."""
    if len(arguments) != 1:
        print("Error: give the directory to write to: python -m stream.schema docs/schema", file=sys.stderr)
        return 2
    settings = load_settings(None, os.environ)
    for path in write_schemas(Path(arguments[0]), settings.topics, settings.mapping(), settings.limits()):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
