"""CSS of the page and of its charts, in light and dark."""

from __future__ import annotations

COLOURS = """\
:root {
  color-scheme: light dark;
  --page: #f6f7f9; --card: #fff; --text: #1b1f24; --quiet: #57606a; --line: #d8dee4;
  --strong: #0a58ca; --other: #8a4b00; --heat: #9cc4ff; --area: #0a58ca55;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #0f1318; --card: #181d24; --text: #e8ebef; --quiet: #a5afbb; --line: #2f3741;
    --strong: #82b1ff; --other: #ffb870; --heat: #1f4f99; --area: #82b1ff55;
  }
}
"""

DRAWING = """\
svg text {
  font-family: system-ui, sans-serif; font-size: 12.5px;
  fill: var(--text); paint-order: stroke; stroke: var(--card); stroke-width: 3px;
}
svg .quiet { fill: var(--quiet); }
svg .middle { text-anchor: middle; }
svg .end { text-anchor: end; }
svg .name { font-weight: 600; }
svg .line { stroke: var(--line); }
svg .dashed { stroke: var(--quiet); stroke-dasharray: 4 4; }
svg .error { stroke: var(--strong); stroke-width: 2; }
svg .curve { fill: none; stroke: var(--strong); stroke-width: 2; }
svg .model { fill: var(--strong); }
svg .ring { fill: none; stroke: var(--strong); stroke-width: 2; }
svg .other { fill: var(--card); stroke: var(--other); stroke-width: 2; }
svg .area { fill: var(--area); stroke: var(--strong); }
svg .cell { fill: var(--heat); stroke: var(--line); }
svg .card { fill: var(--card); }
"""

PAGE = """\
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); font: 1rem/1.5 system-ui, sans-serif; }
header, main { max-width: 76rem; margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
header { padding-bottom: 0; }
h1, h2, h3, p, figure { margin: 0 0 .75rem; }
h1 { font-size: 1.7rem; line-height: 1.25; }
h2 { font-size: 1.3rem; line-height: 1.3; }
h3 { font-size: 1.05rem; margin-top: 1.25rem; }
a { color: var(--strong); }
nav ol { margin: 0; padding: 0; list-style: none; display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; }
nav a { display: inline-block; padding: .25rem 0; }
section {
  margin: 0 0 1rem; padding: 1.25rem; background: var(--card);
  border: 1px solid var(--line); border-radius: .5rem;
}
section > p, header > p { max-width: 46rem; }
.answer { font-weight: 600; }
.scroll { overflow-x: auto; margin: 0 0 1rem; }
:focus-visible { outline: 3px solid var(--strong); outline-offset: 2px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9375rem; }
caption { text-align: start; color: var(--quiet); padding-bottom: .25rem; }
caption span { display: block; width: fit-content; max-width: calc(100vw - 5rem); position: sticky; left: 0; }
th, td { padding: .3rem .75rem .3rem 0; text-align: end; border-bottom: 1px solid var(--line); overflow-wrap: normal; }
td { white-space: nowrap; }
th:first-child { text-align: start; position: sticky; left: 0; background: var(--card); }
thead th { vertical-align: bottom; color: var(--quiet); font-weight: 600; }
tbody th { font-weight: 600; }
.heat td { padding-inline: .75rem; background: color-mix(in srgb, var(--heat) calc(var(--share) * 100%), transparent); }
.heat th { padding-inline-end: .75rem; }
code { font-size: .8125rem; }
dl { display: grid; grid-template-columns: fit-content(40%) minmax(0, 1fr); gap: .25rem 1rem; margin: 0 0 1rem; }
dt { color: var(--quiet); }
dd { margin: 0; overflow-wrap: anywhere; }
details { margin: 0 0 .75rem; }
summary { cursor: pointer; padding: .25rem 0; }
.grid {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); gap: .5rem 1.5rem;
  align-items: start;
}
.broad { grid-template-columns: repeat(auto-fill, minmax(min(100%, 28rem), 1fr)); }
.grid > * { min-width: 0; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: 0 0 .75rem; padding: 0; }
.legend svg { vertical-align: -.15em; }
figure svg { display: block; width: 100%; max-width: 26rem; overflow: visible; }
pre { overflow-wrap: anywhere; white-space: pre-wrap; font-size: .8125rem; }
.wide { max-width: 46rem; }
figcaption { font-weight: 600; }
@media print { section { break-inside: avoid; } }
"""

STYLE = COLOURS + PAGE + DRAWING
