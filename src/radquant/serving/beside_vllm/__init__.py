"""A folder on the path of vLLM's server, whose modules import the standard library alone."""
