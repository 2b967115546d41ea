"""What stands around a page: styles and scripts, in the page itself or beside it, and the way to other pages."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from testbed import __version__
from testbed.measure.atomic import write_atomically
from testbed_reports.display import SIGNS, count, figure_text, limit_text, resolution_text, size, title

#: Every file that pages may load; each is named by what it holds, so that old pages keep the one they were made with.
ASSETS = ("page.css", "page.js", "index.js")


@dataclass(frozen=True)
class Site:
    """Where a page stands.

    Attributes:
        root: the way from the page's folder to the site's, such as ``../../``; None: the page stands alone, and
            holds its styles and scripts itself.
        places: label and address from the site's root of every page that all pages lead to.
    """

    root: str | None = None
    places: tuple[tuple[str, str], ...] = ()


ALONE = Site()


@dataclass(frozen=True)
class Frame:
    """One page's frame, as its template takes it."""

    policy: str
    style: Markup
    script: Markup
    places: Sequence[tuple[str, str, bool]] = field(default=())
    version: str = __version__


def frame(site: Site, scripts: Sequence[str] = ("page.js",), here: str = "") -> Frame:
    """The frame of a page; ``here``: which of the site's places it is."""
    common = "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
    places = [(label, f"{site.root or ''}{target}", target == here) for label, target in site.places]
    if site.root is None:
        code = [asset(name) for name in scripts]
        digests = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(c.encode()).digest()).decode()}'" for c in code)
        allowed = digests or "'none'"
        return Frame(
            common + f"style-src 'unsafe-inline'; script-src {allowed}",
            Markup("<style>{}</style>").format(Markup(asset("page.css"))),  # noqa: S704 - our own file
            Markup("").join(Markup("<script>{}</script>").format(Markup(c)) for c in code),  # noqa: S704 - likewise
            places,
        )
    # Styles within elements are positions of what the scripts show.
    return Frame(
        common + "style-src 'self' 'unsafe-inline'; script-src 'self'",
        Markup('<link rel="stylesheet" href="{}assets/{}">').format(site.root, asset_name("page.css")),
        Markup("").join(
            Markup('<script defer src="{}assets/{}"></script>').format(site.root, asset_name(name)) for name in scripts
        ),
        places,
    )


@cache
def asset(name: str) -> str:
    """One of our own styles or scripts."""
    return resources.files("testbed_reports").joinpath("assets", name).read_text(encoding="utf-8")


@cache
def asset_name(name: str) -> str:
    """The name it is published under."""
    stem, dot, suffix = name.rpartition(".")
    return f"{stem}-{hashlib.sha256(asset(name).encode()).hexdigest()[:12]}{dot}{suffix}"


def write_assets(folder: Path) -> None:
    """Write all of them below a site's folder."""
    (folder / "assets").mkdir(parents=True, exist_ok=True)
    for name in ASSETS:
        write_page_file(folder / "assets" / asset_name(name), asset(name))


def write_page_file(path: Path, document: str) -> None:
    """Write one file of a site in one step; its folder must exist. Raises InfrastructureError."""
    # What pages show is visible text already; a surrogate that slipped through must not end the writing.
    content = document.encode("utf-8", errors="backslashreplace")
    write_atomically(path, lambda file: file.write(content))


def way_up(page: str) -> str:
    """The way from a page's folder, given from the site's root, back to that root."""
    return "../" * (len(PurePosixPath(page).parts) - 1)


@cache
def environment() -> Environment:
    """The templates."""
    made = Environment(
        loader=PackageLoader("testbed_reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "count": count,
        "figure": figure_text,
        "limit": limit_text,
        "resolution": resolution_text,
        "size": size,
        "words": title,
    }
    return made


def render(template: str, around: Frame, context: Mapping[str, Any]) -> str:
    """A page."""
    signs = {verdict.value: sign for verdict, sign in SIGNS.items()}
    return environment().get_template(template).render(frame=around, signs=signs, **context)


def script_data(data: dict[str, object]) -> Markup:
    r"""JSON that is safe inside a script element: no ``<`` can end it."""
    return Markup(json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"))  # noqa: S704 - escaped here
