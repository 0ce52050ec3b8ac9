import re
from xml.etree import ElementTree

from bench.kit.report import html
from bench.kit.result import Figure, Variant

from .results import result_of


def body_of(page: str) -> ElementTree.Element:
    """The page's body; raises if a tag is not closed."""
    body = re.search("<body>.*</body>", page, re.DOTALL)
    assert body is not None
    return ElementTree.fromstring(body[0])


def text_of(page: str) -> str:
    """What one reads."""
    return " ".join(" ".join(body_of(page).itertext()).split())


def test_the_page_needs_nothing_else() -> None:
    page = html(result_of([1.0, 2.0]))
    assert not re.search(r"https?:|<script|<link|<img|@import|url\(", page)
    assert "prefers-color-scheme: dark" in page
    assert 'name="viewport"' in page


def test_it_tells_everything_that_the_result_has() -> None:
    text = text_of(html(result_of([1.0, 2.0, 3.0])))
    for part in (
        "python -m bench run",
        "a processor",
        "python 3.11.2",
        "2026-01-01T00:00:00Z",
        "what it is about <b>",
        "sockets 20",
        "the clients were the bottleneck",
        "Node ws was left out: node is not installed",
        "cpu, us",
        "2 (1 to 3)",
        "wait, ms by percentile",
    ):
        assert part in text


def test_a_target_is_met_or_not_or_was_not_measured() -> None:
    rows = [" ".join(row.itertext()) for row in body_of(html(result_of([1.0]))).iter("tr")]
    assert rows[1:] == [
        "request.cpu met 2 at most 10 server CPU per request",
        "request.worse not met 2 at most 1 something else",
        "request.node not measured \u2013 at least 2 against Node (Node ws was left out)",
    ]


def test_bars_are_as_long_as_the_medians_and_the_range_reaches_its_ends() -> None:
    result = result_of([1.0, 2.0, 6.0])
    result.scenarios["request"].variants["bare"] = Variant({"cpu": Figure("us", [8.0])})
    page = body_of(html(result))
    widths = [float(bar.get("width", "")) for bar in page.iter("rect")]
    assert widths[0] / widths[1] == 2.0 / 8.0
    ranges = [path.get("d", "") for path in page.iter("path") if path.get("class") == "range"]
    low, high = map(float, re.findall(r"[MH]([\d.]+)", ranges[0]))
    assert (high - low) / widths[1] == (6.0 - 1.0) / 8.0


def test_a_curve_gives_each_nine_the_same_room() -> None:
    (curve,) = (path for path in body_of(html(result_of([1.0]))).iter("path") if "curve" in path.get("class", ""))
    points = [tuple(map(float, point.split())) for point in curve.get("d", "").lstrip("M").split("L")]
    (x0, _), (x50, _), (x99, _), (x100, _) = points
    assert x0 < x50 < x99 < x100
    assert abs((x99 - x0) / (x50 - x0) - 2 / 0.30103) < 0.1
    heights = [y for _, y in points]
    assert heights == sorted(heights, reverse=True)


def test_a_scenario_that_failed_says_so() -> None:
    result = result_of([])
    result.scenarios["request"].failed = "OSError: no server"
    assert "failed: OSError: no server" in text_of(html(result))
