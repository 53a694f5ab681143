"""Measure what quantizing a radiology report model costs clinically and what it saves."""

__version__ = "0.5.0"
