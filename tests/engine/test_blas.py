"""OpenBLAS under mlx, in a process of its own: what a process has loaded cannot be unloaded."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from typing import Any

import pytest

from app.engine import blas
from tests.local import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere mlx's own products are fast")

_LOOK = """
import ctypes, json, os, sys
import numpy as np
from app.engine import blas

libraries = [blas.load(wanted) for wanted in sys.argv[2:]]
import mlx.core as mx

mx.set_default_device(mx.cpu)
chance = np.random.default_rng(1)
calls = 0


def multiply(kind, rows, inner, columns):
    # The largest difference to numpy's product, by the size of what was added up; with a transposed operand.
    left, right = (chance.standard_normal(shape) for shape in ((rows, inner), (columns, inner)))
    if kind == np.complex64:
        left = left + 1j * left[::-1]
    left, right = left.astype(kind), right.astype(kind)
    ours = np.array(mx.matmul(mx.array(left), mx.array(right).T))
    return float(np.abs(ours - left.astype(np.complex128) @ right.T.astype(np.complex128)).max() / inner)


def worst():
    shapes = ((1, 1, 1), (1, 64, 800), (7, 300, 5), (257, 129, 65))
    return max(multiply(kind, *shape) for kind in (np.float32, np.complex64) for shape in shapes)


def in_a_fork():
    # The engine forks after loading all this: the library's threads are then gone, and it must notice.
    child = os.fork()
    if not child:
        os._exit(0 if multiply(np.float32, 300, 300, 300) < 1e-5 else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def counted(library):
    # Put a function that counts between mlx and the library.
    real = ctypes.CFUNCTYPE(None, *[ctypes.c_int] * 6, ctypes.c_float, *[ctypes.c_void_p, ctypes.c_int] * 2,
        ctypes.c_float, ctypes.c_void_p, ctypes.c_int)

    def count(*arguments):
        global calls
        calls += 1
        real(blas.address(library.functions, "scipy_cblas_sgemm"))(*arguments)

    between = real(count)
    blas.point({"cblas_sgemm": ctypes.cast(between, ctypes.c_void_p).value})
    error = multiply(np.float32, 20, 30, 40)
    return calls, error, between


told = {}
if sys.argv[1] == "count":
    calls, error, between = counted(libraries[0])
    told |= {"calls": calls, "counted": error}
else:
    told |= {"bound": [blas.bind(each) for each in libraries], "fork": in_a_fork(), "worst": worst()}
print(json.dumps(told))
"""


def _look(*arguments: str) -> tuple[dict[str, Any], str]:
    """Return what was seen in a process with these OpenBLAS, and what it wrote to its log."""
    done = subprocess.run(
        [sys.executable, "-c", _LOOK, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=20
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told, done.stderr


def _wheel() -> str:
    found = blas.in_wheel()
    assert len(found) == 1  # the extra 'local' brings it
    return found[0]


def test_mlx_multiplies_with_the_wheels_openblas_and_rightly() -> None:
    told, log = _look("multiply", _wheel())
    assert (told["bound"], told["fork"]) == (["libscipy_openblas.so"], 0)
    assert told["worst"] < 1e-5
    assert not log


def test_each_product_of_mlx_is_a_call_of_what_it_was_pointed_at() -> None:
    told, _ = _look("count", _wheel())
    assert told["calls"] == 1
    assert told["counted"] < 1e-5


def test_without_a_library_that_fits_mlx_multiplies_by_itself() -> None:
    told, log = _look("multiply", "off", "libnothing.so.9", "libm.so.6")
    assert (told["bound"], told["fork"]) == ([None, None, None], 0)
    assert told["worst"] < 1e-5
    missing, other = log.splitlines()
    assert missing.startswith("MLX_OPENBLAS cannot be loaded: libnothing.so.9")
    assert other.startswith("mlx does not take libm.so.6 and computes with its own, slower, products")


def test_nothing_is_changed_where_one_function_is_not_found() -> None:
    pytest.importorskip("mlx.core", reason="the extra 'local' is not installed")
    library = ctypes.CDLL("libm.so.6")
    with pytest.raises(AttributeError, match="scipy_cblas_sgemm"):
        blas.address(library, "scipy_cblas_sgemm")
    with pytest.raises(AttributeError, match="no_such_function"):
        blas.point({"cblas_sgemm": 1, "no_such_function": 1})
    with pytest.raises(LookupError, match="holds cblas_strsm"):  # which is there, and mlx does not call
        blas.point({"cblas_sgemm": 1, "cblas_strsm": 1})
