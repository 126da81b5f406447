"""Parcels of numbers: what a queue can hold without being snapshots."""

from collections.abc import Iterable


class Parcel(list[int]):
    """Some numbers, one byte each."""

    @property
    def nbytes(self) -> int:
        return len(self)

    def followed_by(self, other: "Parcel") -> "Parcel | None":
        return None


def parcels(numbers: Iterable[int], size: int = 1) -> list[Parcel]:
    """Cut numbers into parcels."""
    left = list(numbers)
    return [Parcel(left[begin : begin + size]) for begin in range(0, len(left), size)]


def numbers(taken: Iterable[Parcel]) -> list[int]:
    """Return what is in some parcels."""
    return [number for parcel in taken for number in parcel]
