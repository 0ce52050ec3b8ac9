"""The live view of a run: the latest broadcasts, totals, latencies. Fits whatever terminal it finds."""

import asyncio
import textwrap
from collections.abc import Mapping
from math import ceil
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.style import Style
from rich.table import Table
from rich.text import Text

from haulcast.client import Topic
from haulcast.ports import Role

from .record import Recorder
from .server import Server
from .town import Board, Town

FRAME_EVERY_S = 0.25
NARROW = 72
"""Columns below which the less telling ones are left out."""
LATENCIES_SHOWN = 1_000
"""Over how many of the latest accepts the percentiles are taken."""
STYLES: Mapping[str, str] = {
    "searching": "yellow",
    "partially_filled": "cyan",
    "fully_filled": "green",
    "cancelled": "magenta",
    "expired": "red",
}


class Screen:
    """Draws a run until it is cancelled."""

    def __init__(
        self, console: Console, server: Server, town: Town, board: Board, recorder: Recorder, above: int = 0
    ) -> None:
        self._console = console
        self._server = server
        self._town = town
        self._board = board
        self._recorder = recorder
        self._above = above  # lines over the view that should stay in sight

    async def show(self) -> None:
        """Redraw four times a second."""
        with Live(self.frame(), console=self._console, auto_refresh=False, vertical_overflow="crop") as live:
            try:
                while True:
                    live.update(self.frame(), refresh=True)
                    await asyncio.sleep(FRAME_EVERY_S)
            finally:
                live.update(self.frame(), refresh=True)

    def frame(self) -> RenderableType:
        """The view as it is now."""
        width = self._console.width
        around = [*self._header(), *self._totals()]
        lines = sum(len(text.wrap(self._console, width)) for text in around) + 2 + self._above
        rows = self._board.newest(max(3, self._console.height - lines))
        return Group(*self._header(), broadcasts_table(rows, width), *self._totals())

    def _header(self) -> list[Text]:
        stops = "stops at once" if self._town.stopping.is_set() else "stops and checks"
        return [
            Text.assemble(("haulcast demo", "bold"), f"  {self._town.phase}  (Ctrl-C {stops})"),
            *map(Text, ready_call(self._server.url, self._server.tenant, self._console.width)),
        ]

    def _totals(self) -> list[Text]:
        recorder = self._recorder
        counts = recorder.broadcasts
        ended = ("filled", "cancelled", "expired")
        live = counts["created"] - sum(counts[state] for state in ended)
        p50, p99 = (recorder.latency_ms(share, last=LATENCIES_SHOWN) for share in (0.5, 0.99))
        latency = "" if p50 is None or p99 is None else f"  p50 {p50:.1f} ms  p99 {p99:.1f} ms"
        lines = [
            Text(f"broadcasts {live} live  " + "  ".join(f"{counts[state]} {state}" for state in ended)),
            Text(
                f"offers {recorder.offers_delivered}  accepts {recorder.accepts_won} won"
                f"  {recorder.accepts_lost} lost{latency}"
            ),
        ]
        if recorder.commands:
            complete = sum(command.complete for command in recorder.commands)
            slowest = recorder.control_ms(1.0)
            lines.append(Text(f"commands {len(recorder.commands)}  {complete} followed by all  max {slowest:.1f} ms"))
        return lines


def console_url(server: Server) -> str:
    """Where the server's console is, with a token that signs in there as an operator of the demo's tenant."""
    return f"{server.url}/console/#token={server.token(Role.OPERATOR, 'console')}"


def show_console(console: Console, url: str) -> int:
    """Print where the console is, once: as one link, which the terminal breaks wherever its lines end. How many lines
    of the terminal that took."""
    lines = [Text("The console, signed in already:", "bold"), Text(url, Style(color="cyan", link=url)), Text()]
    for line in lines:
        console.print(line, soft_wrap=True)
    return sum(max(1, ceil(line.cell_len / console.width)) for line in lines)


def ready_call(url: str, tenant: str, width: int) -> list[str]:
    """A call of the API that can be copied into a shell as it stands, in lines that a terminal of `width` columns does
    not have to break: a backslash at the end of a line joins it to the next, in quotes as well."""
    token = f".venv/bin/haulcast token --tenant {tenant} --role operator --user me"
    call = f'curl {url}/v1/broadcasts -H "Authorization: Bearer $({token})"'
    *lines, last = textwrap.wrap(call, max(1, width - 2), break_long_words=False, break_on_hyphens=False)
    return [*(f"{line} \\" for line in lines), last]


def broadcasts_table(rows: list[tuple[Topic, int]], width: int) -> Table:
    """The broadcasts, each with the server's time, as a table for a terminal `width` columns wide."""
    wide = width >= NARROW
    table = Table(box=None, expand=wide, padding=(0, 1, 0, 0), header_style="dim")
    columns = ["broadcast", "state", "wave", "told", "trucks", "winner", "left"]
    shown = columns if wide else ["state", "trucks", "winner", "left"]
    for name in shown:
        right = name in ("wave", "told", "trucks", "left")
        table.add_column(name, justify="right" if right else "left", no_wrap=True, overflow="ellipsis")
    for topic, now_ms in rows:
        cells = _cells(topic.state, now_ms)
        table.add_row(*(cells[name] for name in shown))
    return table


def _cells(state: Mapping[str, Any], now_ms: int) -> dict[str, Text]:
    status = state["status"]
    trips = state["trips"].values()
    winners = ", ".join(dict.fromkeys(trip["transporter_id"] for trip in trips))
    left_s = max(0, -(-(state["expires_at"] - now_ms) // 1000))
    reason = " (none near)" if state["end_reason"] == "no_vehicles_available" else ""
    return {
        "broadcast": Text(state["broadcast_id"][-8:], "dim"),
        "state": Text(status.replace("_", " ") + reason, STYLES[status]),
        "wave": Text(str(state["wave"])),
        "told": Text(str(state["notified"])),
        "trucks": Text(f"{len(trips)}/{len(state['requests'])}"),
        "winner": Text(winners, "bold"),
        "left": Text(f"{left_s} s" if state["ended_at"] is None else ""),
    }
