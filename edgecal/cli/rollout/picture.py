"""The live table of a rollout, drawn for a terminal of some size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from edgecal.cli.printable import printable
from edgecal.cli.rollout.lines import clock_text, head_lines
from edgecal.cli.story import size_text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from edgecal.cli.rollout.board import Board, Row

_WIDE: Final = 110
"""From so many columns on, a transfer's figures have columns of their own."""
_SPARE: Final = 3
"""Left free at the right: a terminal writes ^C there, and must not begin another line for it."""
_WIDE_NAME: Final = 32
_NARROW_NAME: Final = 18


def draw(
    board: Board, *, now_ms: int, width: int, height: int, stopping: bool = False
) -> RenderableType:
    """Draw how a rollout stands; never higher than the terminal.

    Parameters
    ----------
    width, height
        Of the terminal, in characters.
    stopping
        An interrupt was heard.
    """
    lines = head_lines(board, now_ms=now_ms)
    if stopping:
        lines[0] += "  [yellow]stopping where nothing is half-done[/]"
    head = [Text.from_markup(line, overflow="ellipsis") for line in lines]
    for line in head:
        line.no_wrap = True
    # the table's head, the line of those not shown, and the cursor's own line
    room = height - len(head) - 3
    found = board.rows(now_ms=now_ms, room=max(0, room))
    if not found.rows:
        return Group(*head[: max(1, height - 1)])
    parts: list[RenderableType] = [*head, _table(found.rows, width=max(1, width - _SPARE))]
    if found.hidden:
        parts.append(Text(f"  and {found.hidden} more at work", style="dim"))
    return Group(*parts)


def _table(rows: tuple[Row, ...], *, width: int) -> Table:
    wide = width >= _WIDE
    table = Table(box=None, pad_edge=False, header_style="dim", width=width)
    table.add_column("wave", justify="right", no_wrap=True)
    name = _WIDE_NAME if wide else _NARROW_NAME
    table.add_column("device", no_wrap=True, overflow="ellipsis", max_width=name)
    table.add_column("doing", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    if wide:
        for title in ("sent", "rate", "left"):
            table.add_column(title, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True, overflow="ellipsis", ratio=1)
    for row in rows:
        style = "" if not row.ended else "green" if row.good else "red"
        style = "yellow" if row.step == "waiting" else style
        cells = [str(row.wave), row.target, row.step, _time(row)]
        sent, rate, left = _transfer(row)
        if wide:
            cells += [sent, rate, left, row.note]
        else:
            figures = ", ".join(word for word in (sent, rate, left and f"{left} left") if word)
            cells.append(row.note if row.note and row.rate is None else figures)
        table.add_row(*(Text(printable(cell)) for cell in cells), style=style)
    return table


def _time(row: Row) -> str:
    """Say how long a step has taken; of whoever waits, how long still."""
    if row.again_s:
        return f"in {clock_text(row.again_s)}"
    return "" if row.ended else clock_text(row.seconds)


def _transfer(row: Row) -> tuple[str, str, str]:
    """Write bytes, rate and time left."""
    if not row.total:
        return (size_text(row.sent) if row.sent else "", "", "")
    whole = size_text(row.total)
    sent = size_text(row.sent)
    if sent.split()[1:] == whole.split()[1:]:  # the unit once
        sent = sent.split()[0]
    done = row.sent >= row.total
    return (
        whole if done else f"{sent}/{whole}",
        "" if row.rate is None or done else f"{size_text(round(row.rate))}/s",
        "" if row.eta_s is None else clock_text(row.eta_s),
    )
