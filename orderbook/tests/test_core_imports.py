"""What the domain core loads, and that the examples in its docstrings are true."""

import doctest
import importlib
import pkgutil
import subprocess
import sys

import pytest

import orderbook.book

MODULES = [f"orderbook.book.{module.name}" for module in pkgutil.iter_modules(orderbook.book.__path__)]


def test_the_core_loads_neither_django_nor_numba() -> None:
    compiled = {"kernel", "arena", "kernel_book", "kernel_market", "json_kernel", "snapshot_kernel"}
    names = ", ".join({module.name for module in pkgutil.iter_modules(orderbook.book.__path__)} - compiled)
    program = (
        f"from orderbook.book import {names}; import sys;"
        "print(sorted({'django', 'numba', 'channels', 'celery', 'redis', 'psycopg'} & set(sys.modules)))"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert loaded.stdout == "[]\n"


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings_are_true(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_examples_to_run() -> None:
    attempted = {name: doctest.testmod(importlib.import_module(name)).attempted for name in MODULES}
    assert attempted["orderbook.book.price"] >= 5
    assert attempted["orderbook.book.encoding"] >= 1
