"""SQL as text: quoting."""

from __future__ import annotations


def literal(text: object) -> str:
    """A text (or a path) as an SQL literal.

    >>> literal("it's")
    "'it''s'"
    """
    return "'" + str(text).replace("'", "''") + "'"


def identifier(*names: str) -> str:
    """A name, or a name within another, as an SQL identifier.

    >>> identifier("run_1", 'odd"name')
    '"run_1"."odd""name"'
    """
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)
