"""Names of books by number, one of which changes without a copy of all."""

import pytest

from engine_worker.book_names import BookName, BookNames
from orderbook.book.mbo import BookKey


def name(number: int, tick: int = 0) -> BookName:
    return BookName(f"I{number}", tick, BookKey(1, number))


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 1000])
def test_names_are_those_of_a_list(count: int) -> None:
    plain = [name(number) for number in range(count)]
    names = BookNames(plain[: count // 3])
    names.extend(plain[count // 3 :])
    assert list(names) == plain
    assert len(names) == count
    assert [names[number] for number in range(-count, count)] == plain + plain
    assert names[3::7] == plain[3::7]
    with pytest.raises(IndexError):
        names[count]


@pytest.mark.parametrize("changed", [0, 255, 256, 599])
def test_one_name_changes_in_the_next_list_only(changed: int) -> None:
    before = BookNames(map(name, range(600)))
    behind = before.with_name(changed, name(changed, 25))
    assert before[changed].tick == 0
    assert list(behind) == [name(number, 25 * (number == changed)) for number in range(600)]


def test_names_that_come_later_are_not_in_the_lists_before() -> None:
    before = BookNames(map(name, range(300)))
    behind = before.with_name(7, name(7, 25))  # the page that grows is that of both
    behind.extend(map(name, range(300, 310)))
    assert (len(list(before)), len(before), len(list(behind)), len(behind)) == (300, 300, 310, 310)
    with pytest.raises(IndexError):
        before[300]


def test_a_change_costs_the_page_that_it_is_in() -> None:
    before = BookNames(map(name, range(100 * 256)))
    behind = before.with_name(300, name(300, 25))
    kept = [one is other for one, other in zip(before._pages, behind._pages, strict=True)]
    assert kept.count(False) == 1


def test_who_is_named_at_last_is_called_so_in_every_list() -> None:
    before = BookNames(map(name, range(300)))
    behind = before.with_name(7, name(7, 25))
    behind[299] = name(299, 5)
    assert (before[299].tick, behind[299].tick) == (5, 5)
