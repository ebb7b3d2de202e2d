# SPDX-License-Identifier: GPL-2.0
"""How measurements look: one HTML page that needs nothing else, with plots in it, and plain text for a commit message."""
import html
import math
from typing import Iterable, Mapping, Optional, Sequence

from .measured import Item, Line, Plot, Section, Spread, Value

_WIDTH, _HEIGHT = 760, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 16, 14, 50
_COLOURS = ("#0b6e99", "#c1440e", "#3a7d24", "#7b3fa0", "#b8860b", "#d1006c", "#444444", "#008b8b")
_DASHES = ("", "7 3", "2 3", "9 3 2 3")
_COLUMNS = 75  # of a commit message
_EMULATED = "emulated"
_UNKNOWN = "-"

_STYLE = """
body { font: 15px/1.45 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #222; background: #fff }
table { border-collapse: collapse; margin: 1em 0 }
td, th { padding: .15em .8em; text-align: left; border-bottom: 1px solid #ddd }
td.n { text-align: right; font-variant-numeric: tabular-nums }
.met { color: #1a7f37 } .missed { color: #b00020; font-weight: bold }
.stamp { display: inline-block; border: 2px solid #b00020; color: #b00020; padding: .1em .6em; font-weight: bold }
svg { max-width: 100%; height: auto } svg text { font: 12px sans-serif; fill: #333 } .low { color: #666 }
"""


def text(machine: Mapping[str, str], sections: Sequence[Section], steps: Iterable[tuple[str, float]] = ()) -> str:
    """Everything but the plots' curves, in lines short enough for a commit message where names allow it."""
    lines = [f"Measured on an {_EMULATED} machine: times and rates are the emulator's.", ""]
    lines += [f"{name}: {value}" for name, value in machine.items()]
    for section in sections:
        lines += ["", f"{section.name}: {section.title} (kernel {section.kernel})", ""]
        for item in section.items:
            lines += _text_of(item)
    if known := list(steps):
        lines += ["", "seconds of this run:"] + [f"  {title:<50} {seconds:>8.1f}" for title, seconds in known]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def page(machine: Mapping[str, str], sections: Sequence[Section], steps: Iterable[tuple[str, float]] = ()) -> str:
    """The HTML page."""
    parts = ["<!DOCTYPE html>", '<html lang="en"><head><meta charset="utf-8"><title>hmm-p2p: benchmarks (emulated)</title>',
             f"<style>{_STYLE}</style></head><body>", "<h1>hmm-p2p: benchmarks</h1>",
             f'<p><span class="stamp">{_EMULATED}</span> Device models under QEMU: times and rates are the emulator\'s, '
             "and say nothing about a real NIC or GPU. Ratios within this page are of one run.</p>",
             _table((), ((_escape(name), _escape(value)) for name, value in machine.items()))]
    for section in sections:
        parts.append(f"<h2>{_escape(section.name)}: {_escape(section.title)}</h2>"
                     f'<p class="low">kernel {_escape(section.kernel)}</p>')
        parts += _html_of(section.items)
    if known := list(steps):
        parts += ["<h2>Seconds of this run</h2>",
                  _table(("step", "seconds"), ((_escape(title), _cell(f"{seconds:.1f}")) for title, seconds in known))]
    return "\n".join([*parts, "</body></html>", ""])


def figure(value: Optional[float]) -> str:
    """A number by four digits or, if it is large, in whole; or that there is none."""
    if value is None or not math.isfinite(value):
        return _UNKNOWN
    return f"{value:.0f}" if abs(value) >= 1e4 else f"{value:.4g}"


def _size(count: float) -> str:
    for limit, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= limit and count % limit == 0:
            return f"{count / limit:g} {name}"
    return f"{count:g} B"


def _place(plot: Plot, x: float) -> str:
    return _size(x) if plot.x_bytes else f"{x:g}"


# Text ----------------------------------------------------------------------------------------------------------------

def value_line(value: Value) -> str:
    """A value beside its target, in one line."""
    met = "" if value.met is None else f"{value.target:>12}  {'met' if value.met else 'MISSED'}"
    spread = f"({figure(value.spread.low)} to {figure(value.spread.high)})" if value.spread else ""
    return f"{value.what:<50} {figure(value.value):>10} {value.unit:<12} {met:<21} {spread}".rstrip()


def _text_of(item: Item) -> list[str]:
    if isinstance(item, str):
        return _wrapped(item)
    return [value_line(item)] if isinstance(item, Value) else plot_lines(item)


def plot_lines(plot: Plot) -> list[str]:
    """A plot as a table: a column for each line, medians."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    lines = ["", f"{plot.title}, {plot.y}"]
    lines += [f"  {letters[number % len(letters)]}  {line.name}{_text_spread(line)}" for number, line in enumerate(plot.lines)]
    lines.append("".join([f"  {plot.x:<10}", *(f" {letters[number % len(letters)]:>8}" for number in range(len(plot.lines)))]))
    for x in plot.places:
        cells = (spread.median if (spread := line.at(x)) else None for line in plot.lines)
        lines.append("".join([f"  {_place(plot, x):<10}", *(f" {figure(cell):>8}" for cell in cells)]))
    return [*lines, ""]


def _text_spread(line: Line) -> str:
    widest = [max(spread.high - spread.median, spread.median - spread.low) / spread.median
              for _, spread in line.points if spread.known and spread.median > 0]
    return f" (rounds differ from the median by up to {100 * max(widest):.0f}%)" if widest else ""


def _wrapped(remark: str) -> list[str]:
    lines, current = [], ""
    for word in remark.split():
        if current and len(current) + 1 + len(word) > _COLUMNS:
            lines.append(current)
            current = word
        else:
            current = f"{current} {word}".strip()
    return [*lines, current]


# HTML ----------------------------------------------------------------------------------------------------------------

def _escape(words: str) -> str:
    return html.escape(words, quote=True)


def _cell(number: str) -> str:
    return f'<td class="n">{_escape(number)}</td>'


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells that do not begin with <td are put in one; all are HTML."""
    head = "".join(f"<th>{_escape(name)}</th>" for name in heads)
    body = "".join(f"<tr>{''.join(cell if cell.startswith('<td') else f'<td>{cell}</td>' for cell in row)}</tr>\n"
                   for row in rows)
    return f"<table>{f'<tr>{head}</tr>' if head else ''}\n{body}</table>"


def _html_of(items: Sequence[Item]) -> list[str]:
    parts: list[str] = []
    values: list[Value] = []

    def flush() -> None:
        if values:
            parts.append(_table(("what", "median or count", "unit", "target", "", "lowest to highest"), map(_row, values)))
            values.clear()

    for item in items:
        if isinstance(item, Value):
            values.append(item)
            continue
        flush()
        parts.append(f"<p>{_escape(item)}</p>" if isinstance(item, str) else _html_plot(item))
    flush()
    return parts


def _row(value: Value) -> Sequence[str]:
    word = "met" if value.met else "missed"
    verdict = "" if value.met is None else f'<td class="{word}">{word}</td>'
    spread = f"{figure(value.spread.low)} to {figure(value.spread.high)}" if value.spread else ""
    return (_escape(value.what), _cell(figure(value.value)), _escape(value.unit), _escape(value.target), verdict,
            _escape(spread))


def _html_plot(plot: Plot) -> str:
    heads = (plot.x, *(line.name for line in plot.lines))
    rows = ((_escape(_place(plot, x)), *(_cell(_with_spread(line.at(x))) for line in plot.lines)) for x in plot.places)
    return "\n".join((f"<h3>{_escape(plot.title)}</h3>", svg(plot),
                      f"<details><summary>the numbers: {_escape(plot.y)}, median (lowest to highest)</summary>",
                      _table(heads, rows), "</details>"))


def _with_spread(spread: Optional[Spread]) -> str:
    if not spread or not spread.known:
        return _UNKNOWN
    return f"{figure(spread.median)} ({figure(spread.low)} to {figure(spread.high)})"


def _drawable(line: Line) -> list[tuple[float, Spread]]:
    """What a logarithmic scale can show."""
    return [(x, spread) for x, spread in sorted(line.points, key=lambda point: point[0])
            if x > 0 and math.isfinite(x) and spread.known and spread.low > 0]


def svg(plot: Plot) -> str:
    """The plot as an SVG element."""
    points = [point for line in plot.lines for point in _drawable(line)]
    if not points:
        return "<p>There is nothing to plot.</p>"
    xs = [math.log2(x) for x, _ in points]
    ys = [math.log10(y) for _, spread in points for y in (spread.low, spread.high)]
    left, right = min(xs), max(max(xs), min(xs) + 1)
    bottom, top = math.floor(min(ys)), max(math.ceil(max(ys)), math.floor(min(ys)) + 1)
    height = _HEIGHT + 18 * len(plot.lines)

    def at_x(x: float) -> float:
        return _LEFT + (math.log2(x) - left) / (right - left) * (_WIDTH - _LEFT - _RIGHT)

    def at_y(y: float) -> float:
        return _HEIGHT - _BOTTOM - (math.log10(y) - bottom) / (top - bottom) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [f'<svg viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" role="img">',
             f"<title>{_escape(plot.title)}</title>"]
    for power in range(bottom, top + 1):
        y = at_y(10.0 ** power)
        parts.append(f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - _RIGHT}" y2="{y:.1f}" stroke="#ddd"/>'
                     f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{10.0 ** power:g}</text>')
    for x in plot.places:
        if x > 0 and math.isfinite(x):
            parts.append(f'<text x="{at_x(x):.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">'
                         f"{_escape(_place(plot, x))}</text>")
    parts.append(f'<text x="{(_LEFT + _WIDTH) / 2:.0f}" y="{_HEIGHT - 12}" text-anchor="middle">{_escape(plot.x)}</text>'
                 f'<text transform="translate(14 {(_HEIGHT - _BOTTOM) / 2:.0f}) rotate(-90)" text-anchor="middle">'
                 f"{_escape(plot.y)}</text>")
    for number, line in enumerate(plot.lines):
        colour, dash = _COLOURS[number % len(_COLOURS)], _DASHES[number // len(_COLOURS) % len(_DASHES)]
        style = f'stroke="{colour}" fill="none" stroke-width="2"' + (f' stroke-dasharray="{dash}"' if dash else "")
        path = " ".join(f"{at_x(x):.1f},{at_y(spread.median):.1f}" for x, spread in _drawable(line))
        parts.append(f'<polyline points="{path}" {style}/>')
        for x, spread in _drawable(line):
            where, what = f"{at_x(x):.1f}", f"{line.name}, {_place(plot, x)}: {_with_spread(spread)}"
            parts.append(f"<g><title>{_escape(what)}</title>"
                         f'<line x1="{where}" y1="{at_y(spread.low):.1f}" x2="{where}" y2="{at_y(spread.high):.1f}" '
                         f'stroke="{colour}"/>'
                         f'<circle cx="{where}" cy="{at_y(spread.median):.1f}" r="3.5" fill="{colour}"/></g>')
        y = _HEIGHT + 18 * number + 4
        parts.append(f'<line x1="{_LEFT}" y1="{y}" x2="{_LEFT + 30}" y2="{y}" {style}/>'
                     f'<text x="{_LEFT + 38}" y="{y + 4}">{_escape(line.name)}</text>')
    return "".join([*parts, "</svg>"])
