"""From the contents of a page to its HTML: one self-contained file that loads nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from backend.commands.report.content import Section
from backend.commands.report.histogram import Histogram


def render(
    package: str, template: str, sections: Sequence[Section], filters: Mapping[str, Any] | None = None, **more: Any
) -> str:
    """Fill a template that extends ``base.html.j2``.

    Args:
        package: of the template.
        template: its file.
        sections: contents of the page; the template has each as `section`, with its `histogram`, in `shown`.
        filters: further ones for the template.
        more: further values for it.
    """
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(name, ".") for name in (package, __package__)]),
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(filters or {})
    shown = [{"section": section, "histogram": Histogram(section)} for section in sections]
    return environment.get_template(template).render(shown=shown, **more)
