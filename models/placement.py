"""Where ONNX Runtime really ran a graph: read from the session's profile, never from its list of providers.

A node without a kernel for the device asked for runs on the CPU, silently, with a copy there and back.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from models.errors import ModelError

__all__ = ["ALLOWED_ELSEWHERE", "check_placement", "read_profile"]

#: Operators that may run elsewhere: none. A copy between devices would be one of its own name, and is no exception.
ALLOWED_ELSEWHERE: Final[frozenset[str]] = frozenset()

NAMED: Final = 3  # nodes that a sentence names


def read_profile(path: Path) -> list[dict[str, Any]]:
    """Return the events of a profile as the session wrote it. Raises ModelError."""
    try:
        events = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(
            f"ONNX Runtime's profile {path} cannot be read ({error}); nothing proves the placement."
        ) from error
    return [event for event in events if isinstance(event, dict)]


def check_placement(
    events: Iterable[Mapping[str, Any]], provider: str, allowed: Collection[str] = ALLOWED_ELSEWHERE
) -> int:
    """Return how many nodes ran, all of them on the provider but those whose operator is allowed elsewhere.

    Raises ModelError that names the nodes which did not, and for a profile in which no node ran: it proves nothing.
    """
    ran = [(event["name"], event["args"]) for event in events if _is_kernel(event)]
    if not ran:
        raise ModelError("ONNX Runtime's profile holds no node that ran, so it proves no placement.")
    elsewhere = [
        f"{name.removesuffix('_kernel_time')} ({args.get('op_name', 'unknown')}) on {args.get('provider') or 'nothing'}"
        for name, args in ran
        if args.get("provider") != provider and args.get("op_name") not in allowed
    ]
    if elsewhere:
        more = f" and {len(elsewhere) - NAMED} more" if len(elsewhere) > NAMED else ""
        raise ModelError(
            f"{len(elsewhere)} of {len(ran)} nodes did not run on {provider}: {', '.join(elsewhere[:NAMED])}{more}; "
            f"choose engine forest or onnx, or an onnxruntime-gpu that has these operators."
        )
    return len(ran)


def _is_kernel(event: Mapping[str, Any]) -> bool:
    """Whether an event is a node that ran; older versions also write one before it and one after."""
    return event.get("cat") == "Node" and str(event.get("name", "")).endswith("_kernel_time")
