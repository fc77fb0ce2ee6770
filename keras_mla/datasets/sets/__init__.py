"""The paper's data sets, one module each."""
