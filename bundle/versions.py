"""Semantic versions: order and the next minor (semver.org, 2.0.0)."""

import re
from typing import Final

_NUMBER: Final = r"(0|[1-9]\d{0,8})"
_PART: Final = r"(?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)"
SEMVER: Final = (
    rf"^{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-({_PART}(?:\.{_PART})*))?(?:\+([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?$"
)
_SEMVER: Final = re.compile(SEMVER.removeprefix("^").removesuffix("$"))

Precedence = tuple[int, int, int, bool, tuple[tuple[bool, int, str], ...], str]


def is_version(text: str) -> bool:
    """Whether a text is a semantic version."""
    return len(text) <= 128 and text.isascii() and _SEMVER.fullmatch(text) is not None


def precedence(version: str) -> Precedence:
    """A key that sorts versions oldest first; a pre-release comes before its release, build data decides last.

    Raises:
        ValueError: if it is not a semantic version.
    """
    match = _SEMVER.fullmatch(version) if version.isascii() else None
    if match is None:
        raise ValueError(f"{version!r} is not a semantic version")
    major, minor, patch, pre, build = match.groups()
    parts = tuple(
        (not part.isdigit(), int(part) if part.isdigit() else 0, "" if part.isdigit() else part)
        for part in (pre or "").split(".")
    )
    return int(major), int(minor), int(patch), pre is None, parts if pre else (), build or ""


def next_minor(versions: list[str]) -> str:
    """The version after the newest of some: the next minor, 1.0.0 if there is none."""
    if not versions:
        return "1.0.0"
    major, minor, *_ = precedence(max(versions, key=precedence))
    return f"{major}.{minor + 1}.0"
