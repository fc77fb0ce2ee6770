"""Reports of a comparison: one HTML file, its tables, and its figures.

`write(comparison, folder)` writes the report. A section is a function from the
comparison to a list of blocks, `Text`, `Table` and `Figure`; `section`
registers it.
"""

from keras_mla.comparison.report import sections as sections
from keras_mla.comparison.report.blocks import Block as Block
from keras_mla.comparison.report.blocks import Figure as Figure
from keras_mla.comparison.report.blocks import Table as Table
from keras_mla.comparison.report.blocks import Text as Text
from keras_mla.comparison.report.page import write as write
from keras_mla.comparison.report.registry import section as section

__all__ = ["Block", "Figure", "Table", "Text", "section", "write"]
