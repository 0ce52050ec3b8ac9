"""The options of `haulcast demo`. Light on imports: the command line reads them for every command."""

import argparse

DEFAULT_TRANSPORTERS = 60
DEFAULT_CUSTOMERS = 40
DEFAULT_NODES = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options to the parser of `haulcast demo`."""
    parser.epilog = "The demo keeps its data and logs in demo/ inside HAULCAST_DATA_DIR (default var/)."
    parser.add_argument(
        "--seconds",
        type=_Number(float, 1, 86_400),
        metavar="N",
        help="create no more broadcasts after N seconds, then drain: wait until those under way, and their trips, have "
        "ended, which takes up to a minute or two more (default: run until Ctrl-C)",
    )
    parser.add_argument("--json", action="store_true", help="no screen; the last line is the result as JSON")
    parser.add_argument(
        "--transporters",
        type=_Number(int, 1, 2_000),
        default=DEFAULT_TRANSPORTERS,
        metavar="N",
        help="how many transporters take hauls (default: %(default)s)",
    )
    parser.add_argument(
        "--customers",
        type=_Number(int, 1, 2_000),
        default=DEFAULT_CUSTOMERS,
        metavar="N",
        help="how many customers broadcast hauls (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="another seed is another city (default: 1)")
    parser.add_argument(
        "--port",
        type=_Number(int, 0, 65_535),
        metavar="N",
        help="where the server listens, and with --cluster the first node, the others on the ports after it (default: "
        "HAULCAST_PORT, or else free ports)",
    )
    parser.add_argument(
        "--cluster",
        type=_Number(int, 2, 20),
        nargs="?",
        const=DEFAULT_NODES,
        metavar="NODES",
        help=f"several servers over a Postgres and a Redis that the demo starts for itself (default: {DEFAULT_NODES})",
    )
    parser.add_argument(
        "--chaos",
        action="store_true",
        help="with --cluster: kill, stop and restart nodes meanwhile, never all at once; with --json it also measures, "
        "on 1,000 more broadcasts, how long they are out of reach",
    )
    parser.add_argument(
        "--control",
        action="store_true",
        help="an operator pauses dispatch, switches its mode and resumes meanwhile, twenty times a minute, at one node "
        "after the other; how long until every node has followed is in the result",
    )


class _Number:
    """An argument type that says its bounds."""

    def __init__(self, kind: type[int] | type[float], low: int, high: int) -> None:
        self._kind, self._low, self._high = kind, low, high

    def __call__(self, text: str) -> int | float:
        try:
            value = self._kind(text)
        except ValueError:
            value = self._low - 1
        if not self._low <= value <= self._high:
            raise argparse.ArgumentTypeError(f"give {self._low} to {self._high}")
        return value
