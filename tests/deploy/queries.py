"""The metrics and labels that a PromQL expression names."""

from dataclasses import dataclass

import promql_parser


@dataclass(frozen=True)
class Named:
    """A metric, the labels it is chosen or shared out by, and (label, values) that it is chosen by.

    Of a regular expression the values are its alternatives; of one that matches whatever is chosen, none.
    """

    metric: str
    labels: frozenset[str]
    values: frozenset[tuple[str, str]] = frozenset()


def named(expression: str) -> set[Named]:
    """Return every metric of the expression with the labels it must therefore have; ValueError if it is no PromQL."""
    return set(_walk(promql_parser.parse(expression), frozenset()))


def _walk(node, grouped):
    if isinstance(node, promql_parser.VectorSelector):
        matchers = node.matchers.matchers
        values = {(matcher.name, value) for matcher in matchers for value in _values(matcher)}
        yield Named(str(node.name), grouped | {matcher.name for matcher in matchers}, frozenset(values))
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


def _values(matcher):
    if matcher.op in (promql_parser.MatchOp.Equal, promql_parser.MatchOp.NotEqual):
        return [matcher.value]
    return [value for value in matcher.value.split("|") if value != ".*" and "$" not in value]
