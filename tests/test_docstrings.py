"""Docstrings become clean reStructuredText, whatever they hold."""

import importlib
import inspect
import io
import pkgutil

import pytest
from docutils.core import publish_doctree
from sphinx.ext.napoleon import Config
from sphinx.ext.napoleon.docstring import GoogleDocstring

import medbench
from medbench.book.docstrings import rewrite


def test_formulas_and_names():
    assert rewrite(["$2N^2C$: cost of `mix`, `(B, N)`."]) == [":math:`2N^2C`: cost of ``mix``, ``(B, N)``."]
    assert rewrite(["The `Stage`s of $h$s."]) == ["The ``Stage``\\ s of :math:`h`\\ s."]
    assert rewrite(["a formula $a +", "b$ over two lines"]) == ["a formula :math:`a + b` over two lines"]
    assert rewrite(["``as it is`` and :math:`x`"]) == ["``as it is`` and :math:`x`"]
    assert rewrite(["A **preset**, *never* two; k * v, **more, |x|"]) == [
        "A **preset**, *never* two; k \\* v, \\*\\*more, \\|x\\|"]
    assert rewrite(["it costs 5 $ and 6 $ more"]) == ["it costs 5 $ and 6 $ more"]


def test_a_head_with_text_is_a_paragraph_whatever_its_indent():
    got = rewrite(["What.", "Args: `a` one;", "    `b` two.", "Returns: three."])
    assert got == ["What.", "", "**Args**: ``a`` one;", "``b`` two.", "", "**Returns**: three."]


def test_a_head_alone_is_left_for_napoleon():
    assert rewrite(["Args:", "    dim: channels $C$."]) == ["Args:", "    dim: channels :math:`C`."]


def modules():
    names = [m.name for m in pkgutil.walk_packages(medbench.__path__, "medbench.")]
    return [name for name in names if not name.endswith("__main__") and not name.startswith("medbench.book")]


def docstrings(module):
    for name, found in vars(module).items():
        if getattr(found, "__module__", None) == module.__name__ and inspect.isroutine(found):
            yield name, found.__doc__
        elif inspect.isclass(found) and found.__module__ == module.__name__:
            yield name, found.__dict__.get("__doc__")
            for part, inner in vars(found).items():
                yield f"{name}.{part}", inner.__doc__ if inspect.isfunction(inner) else None
    yield "", module.__doc__


@pytest.mark.parametrize("name", modules())
def test_every_docstring_is_clean(name):
    module = importlib.import_module(name)
    for where, text in docstrings(module):
        if not text:
            continue
        config = Config(napoleon_use_param=True, napoleon_use_rtype=False, napoleon_use_ivar=True)
        lines = GoogleDocstring(rewrite(inspect.cleandoc(text).split("\n")), config)
        complaints = io.StringIO()
        publish_doctree(str(lines), settings_overrides={"warning_stream": complaints, "report_level": 2})
        assert not complaints.getvalue(), f"{name}.{where}: {complaints.getvalue()}"
