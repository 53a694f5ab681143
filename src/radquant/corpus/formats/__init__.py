"""The formats that a corpus comes in: one module each, see `kind`."""
