"""A result as one HTML file that opens anywhere: no script, nothing from the network, charts as SVG inside the page.

1. A bar is a median; the line across it goes from the lowest repetition to the highest.
2. A latency curve has the share of requests on an axis that gives each further nine the same room, and milliseconds on
   a logarithmic one.
3. A variant has the same colour in all charts of its scenario.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from math import ceil, floor, log10
from string import Template
from typing import Any

from .result import Figure, Result, ScenarioResult, Target

COLOURS = 8
"""How many there are before they repeat."""
WIDTH = 360
BAR_HEIGHT, BAR_STEP, BAR_LEFT, BAR_RIGHT = 10, 34, 4, 8
CURVE_HEIGHT, CURVE_LEFT, CURVE_RIGHT, CURVE_TOP, CURVE_BOTTOM = 220, 46, 12, 10, 24
LONGEST_AXIS = 4.6
"""Where the maximum stands, in nines; 99.99 is at 4."""
NINES = {0.0: "0", 90.0: "90", 99.0: "99", 99.9: "99.9", 99.99: "99.99", 100.0: "max"}

PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; --page: #fcfcfb; --ink: #1d1d1b; --soft: #5f5e5a; --line: #dddcd6; --good: #176b3a;
  --bad: #b3261e; --c0: #2a78d6; --c1: #d9730d; --c2: #1a9b6c; --c3: #b0439e; --c4: #8a7300; --c5: #c8372d;
  --c6: #5b5fc7; --c7: #6b7280; }
@media (prefers-color-scheme: dark) {
  :root { --page: #191918; --ink: #ecebe6; --soft: #a8a69e; --line: #3a3936; --good: #6fcf97; --bad: #ff8a80;
    --c0: #5a9df0; --c1: #f0954a; --c2: #3fc492; --c3: #d678c6; --c4: #c9ad2e; --c5: #f0726a; --c6: #9295f5;
    --c7: #9ca3af; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 76rem; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1, h2, h3 { line-height: 1.2; margin: 1.6em 0 .4em; }
h1 { margin-top: .2em; }
h2 { border-top: 1px solid var(--line); padding-top: .8em; }
code { font-size: .9em; overflow-wrap: anywhere; }
.soft, dt, caption { color: var(--soft); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1em; margin: .5em 0; }
dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .3em .8em .3em 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.met { color: var(--good); } .missed { color: var(--bad); font-weight: 600; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); gap: 1rem 2rem; }
figure { margin: 0; } figcaption { font-weight: 600; }
svg { display: block; width: 100%; height: auto; font: 12px system-ui, sans-serif; fill: var(--ink); }
svg .soft { fill: var(--soft); } svg .grid { stroke: var(--line); } svg .range { stroke: var(--ink); }
svg .curve { fill: none; stroke-width: 2; stroke-linejoin: round; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 0 1em; margin: .2em 0; padding: 0; font-size: .85em; }
.legend i { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .4em; }
$colours
</style>
</head>
<body>
$body
</body>
</html>
""")


def html(result: Result) -> str:
    """The page."""
    title = f"haulcast bench, {result.profile}, {result.started_at}"
    body = [_header(result), _targets(result.targets)]
    body += [_scenario(name, scenario) for name, scenario in result.scenarios.items()]
    colours = "\n".join(
        f".c{n} {{ fill: var(--c{n}); background: var(--c{n}); }} .curve.c{n} {{ fill: none; stroke: var(--c{n}); }}"
        for n in range(COLOURS)
    )
    return PAGE.substitute(title=escape(title), colours=colours, body="\n".join(body))


def _header(result: Result) -> str:
    facts = {
        "command": result.command,
        "profile": result.profile,
        "started": f"{result.started_at}, took {result.took_s:.0f} s",
        "machine": ", ".join(f"{name} {value}" for name, value in result.machine.items()),
        "versions": ", ".join(f"{name} {value}" for name, value in result.versions.items()),
    }
    return f"<h1>haulcast bench</h1>\n{_facts(facts)}"


def _targets(targets: Mapping[str, Target]) -> str:
    if not targets:
        return ""
    rows = []
    for name, target in targets.items():
        kind, mark = ("soft", "not measured") if target.value is None else _MARKS[target.met]
        value = "–" if target.value is None else _number(target.value)  # noqa: RUF001
        what = escape(f"{target.text} ({target.why_not})" if target.why_not else target.text)
        rows.append(
            f'<tr><td>{escape(name)}</td><td class="{kind}">{mark}</td><td class="number">{value}</td>'
            f'<td class="number">{escape(target.kind)} {target.bound:g}</td><td>{what}</td></tr>'
        )
    head = "<tr><th>target</th><th></th><th>value</th><th>bound</th><th>what</th></tr>"
    return f'<h2>Targets</h2>\n<div class="wide"><table>{head}{"".join(rows)}</table></div>'


_MARKS = {True: ("met", "met"), False: ("missed", "not met")}


def _scenario(name: str, scenario: ScenarioResult) -> str:
    colour = {variant: number % COLOURS for number, variant in enumerate(scenario.variants)}
    parts = [
        f'<h2 id="{escape(name)}">{escape(name)}</h2>',
        f"<p>{escape(scenario.about)}</p>",
        _facts({**scenario.options, "took": f"{scenario.took_s:g} s"}),
    ]
    if scenario.failed:
        parts.append(f'<p class="missed">failed: {escape(scenario.failed)}</p>')
    told = [
        *scenario.notes,
        *(f"{one} was left out: {of.skipped}" for one, of in scenario.variants.items() if of.skipped),
    ]
    if told:
        parts.append(f"<ul>{''.join(f'<li>{escape(note)}</li>' for note in told)}</ul>")
    charts = []
    for name in _names(found.figures for found in scenario.variants.values()):
        bars = {one: of.figures[name] for one, of in scenario.variants.items() if name in of.figures}
        charts.append(_bars(name, {one: figure for one, figure in bars.items() if figure.values}, colour))
    for name in _names(found.curves for found in scenario.variants.values()):
        curves = {one: of.curves[name] for one, of in scenario.variants.items() if name in of.curves}
        charts.append(_curves(name, curves, colour))
    parts.append(f'<div class="charts">{"".join(charts)}</div>')
    return "\n".join(parts)


def _bars(name: str, figures: Mapping[str, Figure], colour: Mapping[str, int]) -> str:
    """A bar for each variant, from 0."""
    if not figures:
        return ""
    unit = next(iter(figures.values())).unit
    longest = max(max(figure.values) for figure in figures.values()) or 1.0
    room = WIDTH - BAR_LEFT - BAR_RIGHT
    shapes = []
    for row, (variant, figure) in enumerate(figures.items()):
        y = row * BAR_STEP + 14
        low, middle, high = (
            max(0.0, value) / longest * room for value in (min(figure.values), figure.median, max(figure.values))
        )
        span = "" if len(figure.values) == 1 else f" ({_number(min(figure.values))} to {_number(max(figure.values))})"
        centre = y + 5 + BAR_HEIGHT / 2
        shapes.append(
            f'<text x="{BAR_LEFT}" y="{y}">{escape(variant)} <tspan class="soft">'
            f"{_number(figure.median)}{span}</tspan></text>"
            f'<rect class="c{colour[variant]}" x="{BAR_LEFT}" y="{y + 5}" width="{max(middle, 1):.1f}" '
            f'height="{BAR_HEIGHT}" rx="2"/>'
            f'<path class="range" d="M{BAR_LEFT + low:.1f} {centre:g}H{BAR_LEFT + high:.1f}"/>'
        )
    height = len(figures) * BAR_STEP + 4
    return _figure(f"{name}, {unit}", _svg(height, f"{name} by variant", shapes))


def _curves(name: str, curves: Mapping[str, Sequence[tuple[float, float]]], colour: Mapping[str, int]) -> str:
    """A line for each variant."""
    values = [ms for curve in curves.values() for _, ms in curve if ms > 0]
    if not values:
        return ""
    lowest, highest = floor(log10(min(values))), max(ceil(log10(max(values))), floor(log10(min(values))) + 1)
    right, bottom = WIDTH - CURVE_RIGHT, CURVE_HEIGHT - CURVE_BOTTOM

    def x(percentile: float) -> float:
        nines = LONGEST_AXIS if percentile >= 100 else min(LONGEST_AXIS, -log10(1 - percentile / 100))
        return CURVE_LEFT + nines / LONGEST_AXIS * (right - CURVE_LEFT)

    def y(ms: float) -> float:
        share = (log10(max(ms, 10.0**lowest)) - lowest) / (highest - lowest)
        return bottom - share * (bottom - CURVE_TOP)

    shapes = [
        f'<path class="grid" d="M{x(at):.1f} {CURVE_TOP}V{bottom}"/>'
        f'<text class="soft" x="{x(at):.1f}" y="{bottom + 16}" text-anchor="middle">{label}</text>'
        for at, label in NINES.items()
    ]
    for power in range(lowest, highest + 1):
        height = y(10.0**power)
        shapes.append(
            f'<path class="grid" d="M{CURVE_LEFT} {height:.1f}H{right}"/>'
            f'<text class="soft" x="{CURVE_LEFT - 6}" y="{height + 4:.1f}" text-anchor="end">{10.0**power:g}</text>'
        )
    for variant, curve in curves.items():
        points = "L".join(f"{x(percentile):.1f} {y(ms):.1f}" for percentile, ms in curve)
        shapes.append(f'<path class="curve c{colour[variant]}" d="M{points}"><title>{escape(variant)}</title></path>')
    legend = "".join(f'<li><i class="c{colour[variant]}"></i>{escape(variant)}</li>' for variant in curves)
    drawing = _svg(CURVE_HEIGHT, f"{name}: milliseconds by percentile", shapes)
    return _figure(f"{name}, ms by percentile", f'{drawing}<ul class="legend">{legend}</ul>')


def _figure(caption: str, content: str) -> str:
    return f"<figure><figcaption>{escape(caption)}</figcaption>{content}</figure>"


def _svg(height: float, label: str, shapes: Iterable[str]) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(label)}">{"".join(shapes)}</svg>'


def _facts(facts: Mapping[str, Any]) -> str:
    return (
        f"<dl>{''.join(f'<dt>{escape(k)}</dt><dd><code>{escape(str(v))}</code></dd>' for k, v in facts.items())}</dl>"
    )


def _names(mappings: Iterable[Mapping[str, object]]) -> list[str]:
    """All keys, each once, in their order."""
    return list(dict.fromkeys(name for mapping in mappings for name in mapping))


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
