"""The metrics and labels that a PromQL expression names."""

from dataclasses import dataclass

import promql_parser

#: Labels that Prometheus itself gives every series it scrapes.
SCRAPED = {"job", "instance"}


@dataclass(frozen=True)
class Named:
    """A metric, and the labels it is chosen or shared out by."""

    metric: str
    labels: frozenset[str]


def named(expression: str) -> set[Named]:
    """Return every metric of the expression with the labels it must therefore have; ValueError if it is no PromQL."""
    return set(_walk(promql_parser.parse(expression), frozenset()))


def _walk(node, grouped):
    if isinstance(node, promql_parser.VectorSelector):
        yield Named(str(node.name), grouped | {matcher.name for matcher in node.matchers.matchers})
    elif isinstance(node, promql_parser.MatrixSelector):
        yield from _walk(node.vector_selector, grouped)
    elif isinstance(node, promql_parser.AggregateExpr):
        by = node.modifier
        named_by = by is not None and by.type == promql_parser.AggModifierType.By
        yield from _walk(node.expr, frozenset(by.labels) if named_by else frozenset())
    elif isinstance(node, promql_parser.BinaryExpr):
        yield from _walk(node.lhs, grouped)
        # The other side of and, or, unless may be of another kind.
        yield from _walk(node.rhs, frozenset())
    elif isinstance(node, promql_parser.Call):
        for argument in node.args:
            yield from _walk(argument, frozenset() if node.func.name == "absent" else grouped)
    elif isinstance(node, (promql_parser.ParenExpr, promql_parser.UnaryExpr, promql_parser.SubqueryExpr)):
        yield from _walk(node.expr, grouped)
    else:
        assert isinstance(node, (promql_parser.NumberLiteral, promql_parser.StringLiteral)), type(node)
