"""Write the pieces of a chapter yourself, with tests, hints and grades."""


def __getattr__(name: str):
    """`check`, for notebooks, imported on first use so that a trial's process starts quickly."""
    if name == "check":
        from .notebook import check

        return check
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
