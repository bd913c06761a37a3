"""The criteria by which any solution of this practical is judged, one file per idea; `tests/grade.py` runs them."""
