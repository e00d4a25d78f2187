"""Fail where the lock files for pip name other versions than uv.lock."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
_PIN = re.compile(r"^([\w.-]+)==([^\s;]+)", re.MULTILINE)


def main() -> int:
    """Compare; return the exit status."""
    lock = tomllib.loads((HERE.parent.parent / "uv.lock").read_text())
    locked = {(package["name"], package.get("version")) for package in lock["package"]}
    wrong = [
        f"{file.name}: {name}=={version} is not in uv.lock; run scripts/lock/update"
        for file in sorted(HERE.glob("*.txt"))
        for name, version in _PIN.findall(file.read_text())
        if (name, version) not in locked
    ]
    print("\n".join(wrong) or "lock files agree")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
