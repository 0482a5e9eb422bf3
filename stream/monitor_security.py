"""librdkafka's properties for TLS and SASL, as the other Kafka client in the monitor understands them.

Faust reads through aiokafka, everything else through librdkafka. What guards the connection must hold for both, so a
property of it that has no counterpart ends the start with a sentence; of others the monitor only says which do not
reach Faust.
"""

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from faust.auth import SASLCredentials, SSLCredentials

from stream.errors import SettingsError
from stream.settings import Settings

__all__ = ["faust_credentials", "unreached"]

PROTOCOLS: Final = ("plaintext", "ssl", "sasl_plaintext", "sasl_ssl")
MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")

TRANSLATED: Final = frozenset(
    {
        "bootstrap.servers",
        "enable.ssl.certificate.verification",
        "sasl.mechanism",
        "sasl.mechanisms",
        "sasl.password",
        "sasl.username",
        "security.protocol",
        "ssl.ca.location",
        "ssl.ca.pem",
        "ssl.certificate.location",
        "ssl.endpoint.identification.algorithm",
        "ssl.key.location",
        "ssl.key.password",
    }
)
#: Properties whose names begin so decide who is talked to, and who listens.
GUARDS: Final = ("ssl.", "sasl.", "enable.ssl.", "enable.sasl.", "https.")


def faust_credentials(settings: Settings) -> SASLCredentials | SSLCredentials | None:
    """Return the credentials for Faust, None for plain text; raises SettingsError where there is no counterpart."""
    properties = settings.client_properties("consumer")
    for name in properties:
        if name not in TRANSLATED and name.startswith(GUARDS):
            raise SettingsError(
                f"kafka.properties.{name} has no counterpart in Faust's Kafka client, which the monitor reads with: "
                f"use ssl.ca.location, ssl.certificate.location, ssl.key.location, and sasl.mechanism PLAIN or SCRAM."
            )
    protocol = properties.get("security.protocol", "plaintext").lower()
    if protocol not in PROTOCOLS:
        raise SettingsError(f"kafka.properties.security.protocol must be one of {', '.join(PROTOCOLS)}.")
    context = _context(properties) if protocol.endswith("ssl") else None
    if protocol.startswith("sasl"):
        return SASLCredentials(
            username=_needed(properties, "sasl.username"),
            password=_needed(properties, "sasl.password"),
            mechanism=_mechanism(properties),
            ssl_context=context,
        )
    return None if context is None else SSLCredentials(context=context)


def unreached(settings: Settings) -> list[str]:
    """Return the names of the properties that tune librdkafka and mean nothing to Faust."""
    return sorted(name for name in settings.client_properties("consumer") if name not in TRANSLATED)


def _mechanism(properties: Mapping[str, str]) -> str:
    mechanism = properties.get("sasl.mechanism", properties.get("sasl.mechanisms", "GSSAPI"))
    if mechanism not in MECHANISMS:
        raise SettingsError(
            f"kafka.properties.sasl.mechanism is {mechanism}, which the monitor does not take to Faust: use one of "
            f"{', '.join(MECHANISMS)}."
        )
    return mechanism


def _needed(properties: Mapping[str, str], name: str) -> str:
    if name not in properties:
        raise SettingsError(f"kafka.properties.{name} is missing, which security.protocol asks for.")
    return properties[name]


def _context(properties: Mapping[str, str]) -> ssl.SSLContext:
    context = ssl.create_default_context()
    try:
        if authority := properties.get("ssl.ca.location"):
            where: dict[str, Any] = {"capath": authority} if Path(authority).is_dir() else {"cafile": authority}
            context = ssl.create_default_context(**where)
        elif pem := properties.get("ssl.ca.pem"):
            context = ssl.create_default_context(cadata=pem)
        if certificate := properties.get("ssl.certificate.location"):
            key, password = properties.get("ssl.key.location"), properties.get("ssl.key.password")
            context.load_cert_chain(certificate, key, password)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"A certificate or key under kafka.properties cannot be used ({error}): correct ssl.ca.location, "
            f"ssl.certificate.location, ssl.key.location or ssl.key.password."
        ) from error
    verified = properties.get("enable.ssl.certificate.verification", "true").lower() == "true"
    if not verified or properties.get("ssl.endpoint.identification.algorithm", "https").lower() == "none":
        context.check_hostname = False
    if not verified:
        context.verify_mode = ssl.CERT_NONE
    return context
