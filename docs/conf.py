"""Settings of Sphinx: `python -m sphinx -W -b html docs build/docs`."""

import os
import pathlib
import sys

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE / "extensions"))

import keras_mla  # noqa: E402

project = "keras_mla"
author = "The keras_mla authors"
copyright = author
version = release = keras_mla.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx.ext.intersphinx",
    "sphinx_copybutton",
    # Ours.
    "catalogue",
    "docstrings",
    "formulas",
    "names",
]
exclude_patterns = ["extensions", "build"]
# Notebooks have their outputs; guides are run by the tests.
nb_execution_mode = "off"
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 4
# A word in single backquotes is code, as in Markdown.
default_role = "code"

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
# Docstrings say types and shapes in words.
autodoc_typehints = "none"
autodoc_class_signature = "mixed"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = [("Call arguments", "params_style"), "Reference"]

# NumPy's names become links where its inventory is at hand: a file, or the
# network, which a build must ask for.
intersphinx_mapping = {}
_inventory = HERE / "numpy.inv"
if _inventory.exists():
    intersphinx_mapping["numpy"] = (
        "https://numpy.org/doc/stable/",
        str(_inventory),
    )
elif os.environ.get("KERAS_MLA_DOCS_ONLINE"):
    intersphinx_mapping["numpy"] = ("https://numpy.org/doc/stable/", None)

html_theme = "furo"
html_title = f"keras_mla {version}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
copybutton_exclude = ".linenos, .gp, .go"
