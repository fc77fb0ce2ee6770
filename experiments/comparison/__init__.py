"""Parts of `projection_study.py`, and `make_npz.py`."""
