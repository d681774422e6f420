"""Reading, splitting, checking and batching data."""

ROW = "row"
"""Column of every data set: the 1-based number of the data row in its source file or split."""
FOLDER = "__folder__"
"""Column of rows about images: the folder that relative paths in the row start from."""
