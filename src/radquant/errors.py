"""The one exception for everything that a user can put right."""


class UserError(Exception):
    """A mistake in input, configuration or environment.

    The message is one sentence: what is wrong, where, and what to do. It never holds report text.
    """
