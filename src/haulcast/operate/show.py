"""What the server says, as text. Whatever somebody else has written is shown without what could steer a terminal."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

Data = Mapping[str, Any]
_STATES = frozenset({"pause", "resume", "switch_mode"})
"""Commands after which something is so; if it was, they change nothing."""


def settings_text(reply: Data, tenant: str) -> str:
    """All settings, with the defaults of those that differ."""
    settings, defaults = reply["settings"], reply["defaults"]
    rows = [["setting", "value", "default"]]
    for name, value in settings.items():
        default = defaults.get(name)
        rows.append([name, word(value), "" if value == default else word(default)])
    state = "PAUSED: no new broadcasts and no new waves" if reply["paused"] else "running"
    head = f"{tenant}version {reply['version']}, {state}, mode {word(settings.get('dispatch_mode'))}"
    return f"{head} (there are {', '.join(map(word, reply['modes']))})\n\n{table(rows)}"


def difference_text(before: Data, after: Data) -> str:
    """What is to change, a line each; nothing if nothing does."""
    rows = [[name, word(before[name]), "->", word(value)] for name, value in after.items() if before.get(name) != value]
    return table(rows)


def answer_text(reply: Data, *, changes: bool = True) -> str:
    """How a command went: what it changed, if that is wanted, and node by node who has followed."""
    nodes = reply["nodes"]
    silent = [node["node"] for node in nodes if node["status"] == "silent"]
    lines = []
    if reply["command"] in _STATES and not reply["changes"]:
        lines.append("it was so already")
    if changes and reply.get("changes"):
        lines.append(table([[name, word(c["from"]), "->", word(c["to"])] for name, c in reply["changes"].items()]))
    width = max((len(str(node["node"])) for node in nodes), default=0)
    lines += [f"node {node['node']:>{width}}  {_followed(node, reply['command'])}" for node in nodes]
    version = f"version {reply['version']}, " if "version" in reply else ""
    where = f"{version}number {reply['number']} in the log"
    if silent:
        end = f"{len(silent)} of {len(nodes)} nodes {'has' if len(silent) == 1 else 'have'} not answered"
        lines.append(f"{reply['command']} is recorded and holds ({where}); {end}")
    elif not reply["complete"]:
        lines.append(f"{reply['command']} was refused ({where})")
    else:
        lines.append(f"{reply['command']} is done ({where})")
    return "\n".join(lines)


def log_text(entries: Sequence[Data], following: int | None) -> str:
    """Commands as a table, newest first."""
    if not entries:
        return "nothing yet"
    rows = [["number", "when", "who", "what", "outcome"]]
    rows += [[str(e["number"]), when(e["at"]), who(e), what(e), outcome(e["outcome"])] for e in entries]
    more = "" if following is None else f"\n\nthere is more: --before {following}"
    return table(rows) + more


def meanwhile_text(entries: Iterable[Data]) -> str:
    """What others did, oldest first."""
    rows = [[f"version {e['version']}", when(e["at"]), who(e), what(e)] for e in entries]
    return table(sorted(rows, key=lambda row: int(row[0].split()[1])))


def when(at_ms: int) -> str:
    """A time of the server, in UTC."""
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M:%SZ}"


def who(entry: Data) -> str:
    """Who gave a command."""
    return f"{plain(entry['by']['role'])} {plain(entry['by']['user'])}"


def what(entry: Data) -> str:
    """What was commanded, and what it changed."""
    data, command = entry["data"], plain(entry["command"])
    changes = ", ".join(f"{plain(n)} {word(c['from'])} -> {word(c['to'])}" for n, c in entry["changes"].items())
    match entry["command"]:
        case "announce":
            return f"{command} to {word(data.get('audience'))}: {word(data.get('text'))}"
        case "drain_node":
            return f"{command} {word(data.get('node'))}"
        case "patch_settings" | "switch_mode":
            return f"{command}: {changes or 'nothing was different'}"
        case _:
            return command


def outcome(found: Data | None) -> str:
    """How the nodes answered."""
    if found is None:
        return "not known"
    nodes = found["nodes"]
    text = f"{sum(node['status'] == 'acked' for node in nodes)} of {len(nodes)}"
    for status in ("gone", "silent"):
        if those := [str(node["node"]) for node in nodes if node["status"] == status]:
            text += f", {'node' if len(those) == 1 else 'nodes'} {' and '.join(those)} {status}"
    return text


def word(value: Any) -> str:
    """A value as one writes it: words as they are, the rest as JSON."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    elif isinstance(value, list):
        return f"[{', '.join(map(word, value))}]"
    return msgspec.json.encode(value).decode()


def plain(text: str) -> str:
    """Without control characters."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns, two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _followed(node: Data, command: str) -> str:
    match node["status"]:
        case "acked" if command == "drain_node":
            return f"leaves, since {node['after_ms']:g} ms: it hands over what it has, and stops"
        case "acked":
            return f"followed after {node['after_ms']:g} ms"
        case "gone":
            return "has died; what it had goes on elsewhere, as commanded"
        case "silent":
            return "has not answered; it will follow"
        case "refused":
            return "goes on: the others are being drained, and it would have been the last"
        case other:
            return plain(other)
