"""HTML by string templates: every function takes plain text, escapes it, and gives back markup."""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Iterable, Sequence
from html import escape
from string import Template

STYLE = """
:root{color-scheme:light dark;--page:#f6f7f9;--card:#fff;--ink:#1c2733;--faint:#5d6875;--line:#dde2e8;--link:#0b57a4;
--warn:#fff6e0;--warnline:#d79b1e;--mark:#fdeeb9;--right:#0b6b4f;--wrong:#a3342c;--both:#5a6b7d;--first:#0b57a4;
--second:#d2600c;--none:#c5ccd4}
@media(prefers-color-scheme:dark){:root{--page:#12161c;--card:#1a2029;--ink:#e6e9ef;--faint:#a3adba;--line:#323a46;
--link:#7bbcff;--warn:#2b2516;--warnline:#c9972f;--mark:#4a3d12;--right:#5ed3ab;--wrong:#ff9c92;--both:#93a3b5;
--first:#6db3ff;--second:#ee8b3a;--none:#414b58}}
*{box-sizing:border-box}html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--page);color:var(--ink);
font:16px/1.6 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:62rem;margin:0 auto;padding:1.5rem 1rem 4rem}
h1{font-size:1.9rem;line-height:1.2;margin:.5rem 0 .75rem;text-wrap:balance}
h2{font-size:1.3rem;line-height:1.3;margin:0 0 .75rem}h3{font-size:1.05rem;margin:1.5rem 0 .5rem}
p,ul{margin:.6rem 0}ul{padding-left:1.25rem}li{margin:.3rem 0}a{color:var(--link)}
section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:1.25rem 1.4rem;margin:1.1rem 0}
section.box{background:var(--warn);border-left:5px solid var(--warnline)}
.lead{font-size:1.1rem}.purpose,figcaption,.note{color:var(--faint)}.note,figcaption{font-size:.9rem;line-height:1.5}
nav{font-size:.9rem;margin:.5rem 0}nav a{display:inline-block;margin-right:.9rem}
.caveat{border-left:4px solid var(--warnline);padding-left:.8rem;font-weight:600}
.fold{display:grid;grid-template-columns:repeat(auto-fit,minmax(11rem,1fr));gap:0 .5rem;align-items:start}
.fold details[open]{grid-column:1/-1}.fold details{margin:.25rem 0}.fold summary{font-size:.9rem}
figure{margin:.5rem 0 1rem}figure img{display:block;width:100%;max-width:100%;height:auto}figcaption{margin-top:.6rem}
.scroll{overflow-x:auto;margin:.75rem 0;max-width:100%}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums;min-width:min(100%,32rem)}
th,td{padding:.4rem .7rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
th{font-weight:600}th[scope=row]{min-width:8rem}thead th{vertical-align:bottom;border-bottom:2px solid var(--line)}
td.number,th.number{text-align:right}td.number,td a{white-space:nowrap}
td small,th small{color:var(--faint);font-weight:normal}
.wide{max-height:28rem;overflow-y:auto}.wide thead th{position:sticky;top:0;background:var(--card)}
tr.differs th,tr.differs td{background:var(--mark)}
th button{all:unset;cursor:pointer;text-decoration:underline dotted}
:focus-visible{outline:2px solid var(--link);outline-offset:1px}
th[aria-sort=ascending] button::after{content:" \\25B2"}th[aria-sort=descending] button::after{content:" \\25BC"}
.short{color:var(--faint);display:block;min-width:14rem}tr.open td{background:var(--mark)}tr{scroll-margin-top:7rem}
.controls{display:flex;flex-wrap:wrap;gap:.5rem 1rem;align-items:end;font-size:.9rem;margin:.7rem 0}
.controls label{display:grid;gap:.15rem;color:var(--faint);min-width:0;max-width:100%}
.controls input,.controls select,.controls button{font:inherit;color:var(--ink);background:var(--page);
border:1px solid var(--line);border-radius:6px;padding:.3rem .5rem;max-width:100%}.controls output{color:var(--faint)}
#viewer{border-top:2px solid var(--line);margin-top:1rem;padding-top:.2rem}#viewer:focus{outline:none}
.columns{display:grid;grid-template-columns:1fr 1fr;gap:0 1.2rem}.columns>div{min-width:0}
.columns summary{font-size:.9rem}
h4{margin:.8rem 0 .2rem}.list{max-height:32rem;overflow-y:auto}.neutral{font-weight:600}
details{border:1px solid var(--line);border-radius:8px;margin:.4rem 0;padding:0 .8rem}
details[open]{padding-bottom:.6rem}summary{cursor:pointer;padding:.45rem 0;overflow-wrap:anywhere}
details details{border:0;border-left:3px solid var(--line);border-radius:0;margin:.2rem 0}
pre{white-space:pre-wrap;overflow-wrap:anywhere;max-height:24rem;overflow-y:auto;margin:.4rem 0;padding:.6rem .8rem;
background:var(--page);border-radius:6px;font:.85rem/1.5 ui-monospace,Menlo,Consolas,monospace}
.right{color:var(--right);font-weight:600}.wrong{color:var(--wrong);font-weight:600}
.bar{display:flex;height:1.3rem;min-width:14rem;border-radius:4px;overflow:hidden}.bar span{display:block}
.key{display:inline-block;width:.8rem;height:.8rem;border-radius:3px;margin:0 .35rem 0 .9rem;vertical-align:-.05rem}
.both{background:var(--both)}.first{background:var(--first)}.second{background:var(--second)}.none{background:var(--none)}
.links{columns:9rem auto;list-style:none;padding:0}.links li{margin:0}
@media(max-width:40rem){main{padding:.75rem .6rem 3rem}section{padding:1rem .85rem}h1{font-size:1.5rem}
th,td{padding:.35rem .5rem}.columns{grid-template-columns:1fr}}
@media print{section{break-inside:avoid}.wide,pre{max-height:none}}
"""

PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline' 'self' file:">
<title>$title</title>
<style>$style</style>
</head>
<body>
<main>
$body
</main>
<script>$script</script>
</body>
</html>
""")


def page(title: str, body: Iterable[str]) -> str:
    """The whole document: style and script inside, and a policy that lets it load nothing but files beside it."""
    script = importlib.resources.files("rlvr_limit.report").joinpath("page.js").read_text(encoding="utf-8")
    return PAGE.substitute(title=escape(title), style=STYLE, script=script, body="\n".join(body))


def section(anchor: str, heading: str, parts: Iterable[str], kind: str = "") -> str:
    """One card of the page."""
    body = "\n".join(part for part in parts if part)
    return f'<section id="{escape(anchor)}" class="{escape(kind)}">\n<h2>{escape(heading)}</h2>\n{body}\n</section>'


def prose(text: str) -> str:
    """Escaped text in which a number keeps its per cent sign, and k its value, on one line."""
    return re.sub(r"(?<=\d) (?=%)|(?<=\bk) (?== )|(?<=\bk =) (?=\d)", "&nbsp;", escape(text))


def paragraph(text: str, kind: str = "") -> str:
    return f'<p class="{escape(kind)}">{prose(text)}</p>'


def heading(text: str) -> str:
    return f"<h3>{escape(text)}</h3>"


def items(lines: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{prose(line)}</li>" for line in lines) + "</ul>"


def preformatted(text: str) -> str:
    return f"<pre>{escape(text)}</pre>"


def link(target: str, text: str) -> str:
    return f'<a href="{escape(target)}">{escape(text)}</a>'


def links(pairs: Iterable[tuple[str, str]]) -> str:
    """A list of links in columns."""
    return '<ul class="links">' + "".join(f"<li>{link(*pair)}</li>" for pair in pairs) + "</ul>"


def details(summary: str, parts: Iterable[str], anchor: str = "") -> str:
    """A part that folds open. summary and parts are markup."""
    mark = f' id="{escape(anchor)}"' if anchor else ""
    return f"<details{mark}><summary>{summary}</summary>\n" + "\n".join(parts) + "\n</details>"


def side_by_side(parts: Iterable[str]) -> str:
    """Parts beside each other where there is room, below each other on a phone."""
    return '<div class="fold">' + "\n".join(parts) + "</div>"


def picture(images: dict[tuple[bool, bool], str], alt: str, caption: str) -> str:
    """A figure with a variant for each (dark, narrow); the browser picks one, no script needed."""
    sources = "".join(
        f'<source media="{query}" srcset="{images[variant]}">\n'
        for query, variant in (
            ("(max-width:40rem) and (prefers-color-scheme:dark)", (True, True)),
            ("(max-width:40rem)", (False, True)),
            ("(prefers-color-scheme:dark)", (True, False)),
        )
    )
    image = f'<img src="{images[False, False]}" alt="{escape(alt)}">'
    return f"<figure><picture>\n{sources}{image}</picture>\n<figcaption>{prose(caption)}</figcaption></figure>"


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    caption: str = "",
    numbers: bool = True,
    differs: Sequence[bool] = (),
) -> str:
    """A table that scrolls sideways in its own box. A cell is text, a second line small; numbers stand to the right."""
    kind = ' class="number"' if numbers else ""
    cells = [[_two_lines(cell) for cell in row] for row in rows]
    body = "".join(
        f"<tr{' class=differs' if differs and differs[i] else ''}><th scope=row>{row[0]}</th>"
        + "".join(f"<td{kind}>{cell}</td>" for cell in row[1:])
        + "</tr>\n"
        for i, row in enumerate(cells)
    )
    top = f"<th>{escape(head[0])}</th>" + "".join(f"<th{kind}>{escape(name)}</th>" for name in head[1:])
    title = paragraph(caption, "note") if caption else ""
    return title + _scrolling("scroll", f"<thead><tr>{top}</tr></thead><tbody>\n{body}</tbody>")


def _two_lines(cell: str) -> str:
    first, *rest = escape(cell).split("\n", 1)
    return first + "".join(f"<br><small>{line}</small>" for line in rest)


def problem_table(head: Sequence[str], rows: Iterable[tuple[str, str, Sequence[tuple[str, str | float]]]]) -> str:
    """A table that the page's script sorts and filters. A row is (id, "1" or "0" for each arm: solved, cells).

    A cell is (markup, value to sort by).
    """
    top = "".join(f'<th scope=col><button type="button">{escape(name)}</button></th>' for name in head)
    body = "".join(
        f'<tr id="{escape(anchor)}" data-solved="{solved}">'
        + "".join(f'<td data-value="{escape(str(value))}">{shown}</td>' for shown, value in cells)
        + "</tr>\n"
        for anchor, solved, cells in rows
    )
    content = f"<thead><tr>{top}</tr></thead><tbody>\n{body}</tbody>"
    return f'<div class="scroll wide" tabindex="0"><table id="problem-table">{content}</table></div>'


def controls(parts: Iterable[str]) -> str:
    """A row of inputs. parts are markup."""
    return '<div class="controls">' + "".join(parts) + "</div>"


def search(name: str, label: str) -> str:
    return f'<label>{escape(label)} <input type="search" id="{name}"></label>'


def select(name: str, label: str, options: Iterable[tuple[str, str]], chosen: str) -> str:
    """A list to choose from; an option is (value, text)."""
    inside = "".join(
        f'<option value="{escape(value)}"{" selected" if value == chosen else ""}>{escape(text)}</option>'
        for value, text in options
    )
    return f'<label>{escape(label)} <select id="{name}">{inside}</select></label>'


def _scrolling(kind: str, content: str) -> str:
    return f'<div class="{kind}" tabindex="0"><table>{content}</table></div>'


def bar(parts: Sequence[tuple[str, str, int]]) -> str:
    """A bar split in proportion to counts. A part is (name, class that names its colour, count)."""
    spans = "".join(
        f'<span class="{escape(kind)}" style="flex:{count}" title="{escape(f"{name}: {count}")}"></span>'
        for name, kind, count in parts
    )
    label = escape(", ".join(f"{name}: {count}" for name, _, count in parts))
    return f'<div class="bar" role="img" aria-label="{label}">{spans}</div>'
