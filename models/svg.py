"""Plots as SVG, equal byte for byte for equal input on one version of matplotlib, whatever a user's own style says.

Offline only: matplotlib is imported here alone and when it draws, so a worker does without it.
"""

import io
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from models.errors import ModelError


def check_matplotlib(instead: str = "") -> None:
    """Raise ModelError where matplotlib is missing; asked before the work that plots close. `instead`: another way."""
    if find_spec("matplotlib") is None:
        raise ModelError(f"Plots need matplotlib: pip install 'fraudstream[train]'{instead}.")


def svg(draw: Callable[[Any], None], size_inches: tuple[float, float], salt: str, style: dict[str, Any]) -> str:
    """Return the file that `draw` makes of an empty figure; the salt keeps its ids apart from other plots' on a page.

    Raises ModelError where matplotlib is missing.
    """
    check_matplotlib()
    import matplotlib as mpl  # noqa: PLC0415 (an extra)
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415 (an extra)
    from matplotlib.figure import Figure  # noqa: PLC0415 (an extra)

    look: Any = {
        **mpl.rcParamsDefault,
        "svg.hashsalt": salt,  # else ids are drawn at random
        "svg.fonttype": "none",  # else text becomes outlines of the fonts at hand
        "text.parse_math": False,  # a country called "$" is a text like any other
        "font.family": "sans-serif",
        **style,
    }
    look.pop("backend")  # no rc_context may change it; the canvas is chosen below
    sink = io.StringIO()
    with mpl.rc_context(look):
        figure = Figure(figsize=size_inches, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        figure.savefig(sink, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return sink.getvalue()
