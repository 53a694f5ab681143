"""The kinds of file that hold a table or a text, each read in one module."""
