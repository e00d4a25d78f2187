"""OpenBLAS in place of the matrix products of mlx's own wheel for Linux, which are many times slower (decision 46).

``load`` comes before mlx is imported, ``bind`` after it. Whatever is not as expected leaves mlx with its own.
"""

from __future__ import annotations

import ctypes
import importlib.util
import logging
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

log = logging.getLogger("sluice.engine")
OFF = "off"
PRODUCTS = ("cblas_sgemm", "cblas_dgemm", "cblas_cgemm")  # all that mlx takes of BLAS; LAPACK has its own copy
_SYSTEM = ("libopenblas.so.0", "libopenblas.so", "libopenblasp.so.0")
_WHEEL, _PREFIX = "scipy_openblas32", "scipy_"  # and what stands before the names of its functions
_WORD = ctypes.sizeof(ctypes.c_void_p)


class Library(NamedTuple):
    """A library by the name that it was loaded by, and its functions."""

    name: str
    functions: ctypes.CDLL


def load(wanted: str, mode: int = ctypes.RTLD_GLOBAL) -> Library | None:
    """Load OpenBLAS: the one that is wanted, or else the system's, or else that of the extra ``local``.

    Loaded globally before mlx looks for its functions, a library with their usual names is what it finds.

    Args:
        wanted: name or path of a library; empty to search, ``off`` for none.
        mode: for ``dlopen``.
    """
    if wanted.lower() == OFF:
        return None
    for name in [wanted] if wanted else [*_SYSTEM, *in_wheel()]:
        try:
            return Library(name, ctypes.CDLL(name, mode=mode))
        except OSError as error:
            if wanted:
                log.warning("MLX_OPENBLAS cannot be loaded: %s", error)
    return None


def in_wheel() -> list[str]:
    """Return the path of the library in the wheel ``scipy-openblas32``, in a list, or an empty one."""
    spec = importlib.util.find_spec(_WHEEL)  # not imported: that would load it
    folders = spec.submodule_search_locations if spec else None
    return [str(path) for folder in folders or () for path in Path(folder).glob("lib/libscipy_openblas*.so")]


def bind(library: Library | None) -> str | None:
    """Let mlx, imported by now, multiply with a library; return its name, or None where mlx uses its own products."""
    if library is None:
        return None
    if not hasattr(library.functions, PRODUCTS[0]):
        try:
            point({name: address(library.functions, _PREFIX + name) for name in PRODUCTS})
        except (AttributeError, LookupError, OSError) as error:
            log.warning("mlx does not take %s and computes with its own, slower, products: %s", library.name, error)
            return None
    return Path(library.name).name


def address(functions: ctypes.CDLL, name: str) -> int:
    """Return where a function is. Raises AttributeError if the library has none of that name."""
    return ctypes.cast(getattr(functions, name), ctypes.c_void_p).value or 0


def point(products: Mapping[str, int]) -> None:
    """Point mlx at other functions, given by address: all of them or, where one is not found, none.

    mlx calls them through words of its data in which the linker has put their addresses. Such a word is found by what
    it holds, so nothing here depends on how the file is laid out.

    Raises:
        AttributeError: mlx does not know a function of that name.
        LookupError: it does not call it through a word that can be written.
        OSError: the system does not tell where mlx is mapped.
    """
    path, areas = _mapped()
    mlx = ctypes.CDLL(path)
    found = {name: [*_words(areas, address(mlx, name))] for name in products}
    if missing := [name for name, words in found.items() if not words]:
        raise LookupError(f"no word of libmlx.so holds {', '.join(missing)}")
    for name, words in found.items():
        for word in words:
            ctypes.c_uint64.from_address(word).value = products[name]


def _mapped() -> tuple[str, list[tuple[int, int]]]:
    """Return the path of mlx's library and the writable areas of its data, as first and last address."""
    path, areas = "", []
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        where, rights, *_, file = line.split(maxsplit=5)
        if file.endswith("/libmlx.so"):
            path = file
            if rights.startswith("rw"):
                first, last = where.split("-")
                areas.append((int(first, 16), int(last, 16)))
    if not path:
        raise LookupError("libmlx.so is not loaded")
    return path, areas


def _words(areas: list[tuple[int, int]], value: int) -> Iterator[int]:
    """Yield the addresses of the words that hold a value."""
    for first, last in areas:
        words = np.ctypeslib.as_array((ctypes.c_uint64 * ((last - first) // _WORD)).from_address(first))
        yield from (first + _WORD * int(index) for index in np.flatnonzero(words == value))
