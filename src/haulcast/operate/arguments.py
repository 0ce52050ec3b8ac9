"""What can be said after `haulcast settings` and `haulcast control`."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeAlias, TypeVar

from haulcast.domain.control import Audience

from .values import parse_lifetime, parse_setting

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
Run: TypeAlias = Callable[[argparse.Namespace], int]
T = TypeVar("T")

_EXITS = """

Exits with 0 if all live nodes follow, 3 if it holds and some node has not answered yet (it will follow), 1 if it was
refused or there was no answer, and 2 if it was not sent: the arguments or the configuration must change."""


class AddCommand(Protocol):
    """Adds a command with its help."""

    def __call__(
        self, commands: Commands, name: str, run: Run, summary: str, description: str
    ) -> argparse.ArgumentParser: ...


def add_operations(commands: Commands, add: AddCommand, run: Run) -> None:
    """Add `settings` and `control`; `run` is called with what was said."""
    settings = commands.add_parser(
        "settings", help="look at the settings of a tenant on a server that runs, and change them"
    ).add_subparsers(required=True, metavar="COMMAND")
    show = add(
        settings,
        "show",
        run,
        "print the settings, whether dispatch is paused, and the mode",
        """
        Prints every setting with its value, and its default where that differs; the version, whether dispatch is
        paused, and the mode.
        """,
    )
    _common(show, "show")

    change = add(
        settings,
        "set",
        run,
        "change settings, from the next message of every broadcast on",
        """
        Changes settings while the server runs, for live broadcasts too. Shows what differs, and then node by node who
        has followed. A value is JSON, or a plain word:

          haulcast settings set wave_interval_s=10 wave_radii_km=[5,20,null] dispatch_mode=blast

        If somebody else has changed something since the version that was read (or --expect), nothing is set, and what
        they changed is printed.
        """,
    )
    change.add_argument("settings", nargs="+", type=_said(parse_setting), metavar="NAME=VALUE", help="what to set")
    change.add_argument(
        "--expect", type=_number, metavar="VERSION", help="the version to build on (default: that of now)"
    )
    _common(change, "set", command=True)
    _listing(settings, add, run, "history", "list who changed which setting, and when")

    control = commands.add_parser(
        "control", help="pause and resume dispatch, switch its mode, announce, drain a node"
    ).add_subparsers(required=True, metavar="COMMAND")
    for name, summary, description in (
        (
            "pause",
            "no new broadcasts and no new waves",
            "Customers who create a broadcast get TENANT_PAUSED, and no wave goes out. Everything else goes on: offers "
            "that are\nopen can be accepted, trips go on, and what is live still expires.",
        ),
        ("resume", "go on where it was paused", "Takes new broadcasts again; waves that are due go out at once."),
        (
            "reload-settings",
            "have every node read again what is in force",
            "Nodes do that by themselves when something changes. This is for when you do not believe it.",
        ),
    ):
        _common(add(control, name, run, summary, description), name.replace("-", "_"), command=True)

    mode = add(
        control,
        "switch-mode",
        run,
        "dispatch in another way",
        "Live broadcasts go on in the new mode. `haulcast settings show` lists the modes.",
    )
    mode.add_argument("mode", metavar="MODE", help="progressive, blast, best_match, or what else the server has")
    _common(mode, "switch_mode", command=True)

    announce = add(
        control,
        "announce",
        run,
        "tell everybody of one role something",
        "Everybody of the role who is connected is told, and whoever connects while it is valid.",
    )
    announce.add_argument("--to", required=True, choices=[a.value for a in Audience], help="the role that it is for")
    announce.add_argument(
        "--lifetime", type=_said(parse_lifetime), default=3_600, metavar="TIME", help="90s, 15m, 1h, 2d (default: 1h)"
    )
    announce.add_argument("text", metavar="TEXT", help="what to say, up to 500 characters")
    _common(announce, "announce", command=True)

    drain = add(
        control,
        "drain-node",
        run,
        "have a node hand over what it has, and stop (admins)",
        """
        The node hands its broadcasts over to the others, sends its clients there, and ends with exit code 0. Under
        `serve --nodes` another is started at once. The last node cannot be drained. `GET /v1/nodes` and the console
        have the numbers of the nodes.
        """,
    )
    drain.add_argument("node", type=_number, metavar="NODE", help="its number")
    _common(drain, "drain_node", command=True)
    _listing(control, add, run, "log", "list which commands were given, by whom, and how the nodes answered")


def _listing(commands: Commands, add: AddCommand, run: Run, name: str, summary: str) -> None:
    parser = add(commands, name, run, summary, f"{summary[0].upper()}{summary[1:]}: newest first, times in UTC.")
    parser.add_argument("--limit", type=_limit, default=20, metavar="N", help="how many, up to 100 (default: 20)")
    parser.add_argument("--before", type=_number, metavar="NUMBER", help="only older ones than this")
    _common(parser, name)


def _common(parser: argparse.ArgumentParser, operation: str, *, command: bool = False) -> None:
    parser.set_defaults(operation=operation)
    if command:
        parser.description = f"{parser.description}{_EXITS}"
        parser.add_argument(
            "--id",
            type=_command_id,
            help="the id of the command: sent again under the same one it is done once, and answered the same "
            "(default: a random one, which is printed)",
        )
    parser.add_argument(
        "--url", type=_url, help="the server (default: HAULCAST_URL, or http://127.0.0.1 at HAULCAST_PORT)"
    )
    parser.add_argument(
        "--token-file", type=Path, metavar="FILE", help="a file with a token of an operator (default: HAULCAST_TOKEN)"
    )
    parser.add_argument(
        "--tenant",
        help="the dispatch network; in development a token for it is made, if the server is on this machine; otherwise "
        "the token must be for it",
    )
    parser.add_argument("--user", help="in development: as whom (default: your login name)")
    parser.add_argument("--json", action="store_true", help="print what the server says, as one JSON object")


def _said(parse: Callable[[str], T]) -> Callable[[str], T]:
    """`parse`, whose own words are what a user is told."""

    def parsed(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parsed


def _url(text: str) -> str:
    from haulcast.config import server_url
    from haulcast.errors import ConfigError

    try:
        return server_url("--url", text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is no number")
    return int(text)


def _limit(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 100:
        raise argparse.ArgumentTypeError("give 1 to 100")
    return int(text)


def _command_id(text: str) -> str:
    if not 1 <= len(text) <= 64 or not text.isascii() or not text.isprintable():
        raise argparse.ArgumentTypeError("give 1 to 64 printable ASCII characters")
    return text
