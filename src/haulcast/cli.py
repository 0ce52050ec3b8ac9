"""The command line. Each subcommand is a function from its arguments to an exit code."""

import argparse
import asyncio
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import dedent

from . import __version__, config
from .domain.ids import TenantId
from .errors import ConfigError, JournalFault, JournalUnavailable
from .ports import Role
from .store_url import StoreUrl

EXIT_FAILED = 1
EXIT_MISCONFIGURED = 2
MAX_NODES = 64


def main(argv: Sequence[str] | None = None) -> int:
    """Run `haulcast` with `argv`. 0: fine; 1: it failed; 2: the configuration or the arguments must change; 3: an
    operator's command holds, and not every node has answered it yet."""
    arguments = _parser().parse_args(argv)
    code: int = EXIT_FAILED
    try:
        code = arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output has enough, as `| head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except ConfigError as error:
        print(f"haulcast: {error}", file=sys.stderr)
        return EXIT_MISCONFIGURED
    except (JournalUnavailable, JournalFault) as error:
        print(f"haulcast: the journal cannot be used: {error}", file=sys.stderr)
        return EXIT_FAILED
    return code


def _serve(arguments: argparse.Namespace) -> int:
    settings = replace(config.load(), reuse_port=arguments.share_port)
    if arguments.nodes > 1:
        from .supervisor import supervise

        return supervise(settings, arguments.nodes)
    from . import app

    return app.serve(settings)


def _demo(arguments: argparse.Namespace) -> int:
    from .demo.run import run_demo

    return run_demo(arguments)


def _migrate(arguments: argparse.Namespace) -> int:
    settings = config.load()
    if settings.database_url is None:
        from .storage.sqlite.migrate import migrate

        where = str(settings.journal_path)
        applied = migrate(settings.journal_path)
    else:
        from .storage import postgres

        where = StoreUrl.parse(settings.database_url).shown
        applied = asyncio.run(postgres.migrate(settings.database_url))
    print(f"{where}: " + (f"applied {', '.join(applied)}" if applied else "up to date"))
    return 0


def _token(arguments: argparse.Namespace) -> int:
    from .transport.auth import KeyRing

    settings = config.load()
    try:
        token = KeyRing(settings.keys, settings.audience).sign(
            tenant=arguments.tenant,
            role=Role(arguments.role),
            user=arguments.user,
            now_ms=time.time_ns() // 1_000_000,
            lifetime_s=arguments.hours * 3600,
            kid=arguments.kid,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from None
    print(token)
    return 0


def _fleet_import(arguments: argparse.Namespace) -> int:
    from .fleet_file import BadFleetFile, import_fleet

    try:
        items = asyncio.run(import_fleet(config.load(), TenantId(arguments.tenant), arguments.file))
    except BadFleetFile as error:
        print(f"haulcast: {arguments.file}: {error}; nothing was imported", file=sys.stderr)
        return EXIT_FAILED
    counts = Counter(type(item).__name__.lower() for item in items)
    print(f"imported into {arguments.tenant}: " + ", ".join(f"{count} {kind}s" for kind, count in counts.items()))
    return 0


def _operate(arguments: argparse.Namespace) -> int:
    from .operate.run import operate

    return operate(arguments)


def _doctor(arguments: argparse.Namespace) -> int:
    from .doctor import examine

    return examine()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="haulcast",
        description="A realtime dispatch server: broadcasts, races, waves and deadlines over WebSocket.",
        epilog=_environment_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"haulcast {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = _command(
        commands,
        "serve",
        _serve,
        "run the server",
        """
        Runs one node until SIGTERM or SIGINT, then stops gracefully: it takes no more commands, finishes those it has,
        tells its clients when to come back, and exits with 0.

        Without any settings it runs embedded: development keys, an SQLite journal in var/, no other process. With a
        configuration that cannot be started it says what to change and exits with 2.

        With HAULCAST_DATABASE_URL and HAULCAST_REDIS_URL it is one node of a cluster. --nodes N runs N of them on this
        machine, behind one port, and starts again what dies; SIGHUP replaces them one after the other.
        """,
    )
    serve.add_argument(
        "--nodes",
        type=_nodes,
        default=1,
        metavar="N",
        help="run N nodes of a cluster behind HAULCAST_PORT; the ports after it are theirs, for operators (default: 1)",
    )
    serve.add_argument("--share-port", action="store_true", help=argparse.SUPPRESS)  # how --nodes runs its nodes
    serve.epilog = _environment_help()

    demo = _command(
        commands,
        "demo",
        _demo,
        "run a server with a small simulated city",
        """
        Starts a server of its own and a city that talks to it as phones do: vehicles move, customers broadcast,
        transporters race, cancel and let expire. Checks afterwards, from what the clients saw and from the journal,
        that nothing was assigned twice and nothing confirmed was lost. Exits with 1 if something was.
        """,
    )
    from .demo.arguments import add_arguments

    add_arguments(demo)

    _command(
        commands,
        "migrate",
        _migrate,
        "bring the journal to this version's schema",
        """
        Applies the migrations that the journal does not have yet, and names them: the embedded one, or the database of
        a cluster if HAULCAST_DATABASE_URL is set. The server does the same when it starts; this is for doing it
        beforehand. A journal that is too new for this version is refused.
        """,
    )

    token = _command(
        commands,
        "token",
        _token,
        "print a token to connect with",
        """
        Prints a signed token (JWT) for one user, made with the first configured key that can sign: in development the
        built-in one. In production your identity provider issues tokens; this needs a secret or a private key.
        """,
    )
    token.add_argument("--tenant", required=True, help="the dispatch network, for example acme")
    token.add_argument("--role", required=True, choices=[role.value for role in Role], help="what the user may do")
    token.add_argument("--user", required=True, help="the id of the customer, transporter, driver or operator")
    token.add_argument("--hours", type=_hours, default=24, help="how long it is valid (default: %(default)s)")
    token.add_argument("--kid", help="the key to sign with (default: the first that can)")

    fleet = commands.add_parser("fleet", help="manage transporters, vehicles and drivers")
    fleet_commands = fleet.add_subparsers(required=True, metavar="COMMAND")
    fleet_import = _command(
        fleet_commands,
        "import",
        _fleet_import,
        "import a file into the journal",
        """
        Creates or replaces every transporter, vehicle and driver that the file names, or none: a line that is wrong is
        named with its number, and the journal stays as it was. A running server notices within a minute.

        JSON lines (.jsonl, .ndjson), one object a line:
          {"kind": "transporter", "id": "t1", "name": "Arjun Logistics"}
          {"kind": "vehicle", "id": "v1", "transporter_id": "t1", "vehicle_type": "mini"}
          {"kind": "driver", "id": "d1", "transporter_id": "t1", "name": "Ravi"}
        CSV (.csv) with the same names as its header:
          kind,id,transporter_id,vehicle_type,name
        A transporter comes before its vehicles and drivers, or exists already.
        """,
    )
    fleet_import.add_argument("file", type=Path, metavar="FILE", help="a .jsonl, .ndjson or .csv file")
    fleet_import.add_argument("--tenant", required=True, help="the dispatch network that they belong to")

    from .operate.arguments import add_operations

    add_operations(commands, _command, _operate)

    _command(
        commands,
        "doctor",
        _doctor,
        "say what is configured, what is reachable and what is missing",
        """
        Looks at the configuration, the data directory and the journal in it (for a node of a cluster: PostgreSQL and
        Redis with all families of keys in it), the port and the running server, changes nothing, and says of each
        whether it is fine and what to do if not. Exits with 1 if something would keep the server from starting.
        """,
    )
    return parser


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
    description: str,
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=dedent(description).strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def _environment_help() -> str:
    return "environment variables:\n" + "\n".join(f"  {name}\n      {text}" for name, text in config.VARIABLES.items())


def _nodes(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_NODES:
        raise argparse.ArgumentTypeError(f"give 1 to {MAX_NODES}")
    return int(text)


def _hours(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 8_760:
        raise argparse.ArgumentTypeError("give 1 to 8760")
    return int(text)
