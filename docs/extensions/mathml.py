"""Equations as MathML, which browsers draw themselves: a page needs no script, and no network."""

import re

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata
from sphinx.writers.html5 import HTML5Translator

FUNCTION = re.compile(r"(<mi>(?:log|exp)</mi>)(?!<mo[^>]*>&#x00028;)")
"""A function's name without a bracket after it."""


def mathml(tex: str, display: str = "inline") -> str:
    """Return an equation as MathML, with a thin space between a function and what it is of."""
    return FUNCTION.sub(r'\1<mspace width="0.17em"/>', convert(tex, display=display))


def _inline(self: HTML5Translator, node: nodes.math) -> None:
    self.body.append(mathml(node.astext()))
    raise nodes.SkipNode


def _block(self: HTML5Translator, node: nodes.math_block) -> None:
    self.body.append(f'<div class="math">{mathml(node.astext(), "block")}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register it with Sphinx."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    app.config.html_math_renderer = "mathml"
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
