"""What can go wrong for a person, by what they can do about it."""


class PipelineError(Exception):
    """A stage failed at its work; the message says what, where and what to do (exit code 1)."""


class UsageError(PipelineError):
    """The command can't be carried out as given: wrong flag, folder or order (exit code 2)."""


class BudgetError(PipelineError):
    """An engine takes or loses more than it may; the message names each budget (exit code 3)."""
