"""Has anyone replaced a method? If so, its work must not be done in a shorter way."""


def is_overridden(obj: object, name: str, cls: type) -> bool:
    """Tells whether an object's method is another than the class's, or is missing.

    A subclass may have its own, and public code assigns methods of single objects.
    """
    return getattr(getattr(obj, name, None), "__func__", None) is not getattr(cls, name)
