"""Sizes and spans of time for people."""


def size(count: float) -> str:
    """Give a number of bytes in decimal units, two digits or more: ``4.0 GB``."""
    if count < 1000:
        return f"{count:.0f} B"
    units = iter(("kB", "MB", "GB", "TB"))
    unit = next(units)
    count /= 1000
    while count >= 999.5 and unit != "TB":
        unit = next(units)
        count /= 1000
    return f"{count:.1f} {unit}" if count < 99.95 else f"{count:.0f} {unit}"


def span(seconds: float) -> str:
    """Give a span of time in the largest unit that fits: ``2 h``, ``0.3 ms``."""
    if seconds < 0.00995:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    for length, unit, limit in ((1, "s", 120), (60, "min", 120), (3600, "h", 48)):
        if seconds / length < limit:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def table(rows: list[list[str]]) -> str:
    """Set rows in columns, two spaces apart, with no blanks at line ends."""
    widths = [
        max((len(row[column]) for row in rows if column < len(row) - 1), default=0)
        for column in range(max(map(len, rows), default=0))
    ]
    return "\n".join(
        "  ".join(
            cell.ljust(width) for cell, width in zip(row, widths, strict=False)
        ).rstrip()
        for row in rows
    )
