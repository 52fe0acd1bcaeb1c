"""What another library said when it failed, in one line."""

from __future__ import annotations


def first_line(error: BaseException) -> str:
    r"""Return the first line of an error's message, or the name of its class if it has none.

    Args:
        error: What was raised. Runtimes and tracers add pages of their own stack to it.

    Example:
        >>> first_line(RuntimeError("no kernel\nat line 3")), first_line(KeyError())
        ('no kernel', 'KeyError')
    """
    return (str(error).strip() or type(error).__name__).splitlines()[0]
