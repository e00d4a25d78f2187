"""Training prompts from ``templates.txt``: small grammars in about 25 languages, written for this project (CC0-1.0)."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import NamedTuple

TEMPLATES = Path(__file__).with_name("templates.txt")
PROMPTS = Path(__file__).with_name("prompts.txt")

SNIPPETS = (
    "def add(a, b):\n    return a - b",
    "for i in range(10)\n    print(i)",
    "for (int i = 0; i <= arr.length; i++) { sum += arr[i]; }",
    "SELECT name, COUNT(*) FROM orders GROUP BY customer_id;",
    "const total = items.reduce((a, b) => a + b.price, 0);",
    "public class Main {\n    public static void main(String[] args) {\n        System.out.println(1);\n    }\n}",
    "```python\nwith open('data.csv') as f:\n    rows = [line.split(',') for line in f]\n```",
    "```js\nasync function load() {\n  const res = fetch('/api/users');\n  return res.json();\n}\n```",
    'int main() { int x = 5; printf("%d", x++); }',
    "#include <vector>\nint total(std::vector<int> v) { int s; for (int x : v) s += x; return s; }",
    '<div class="row"><button onclick="go()">Go</button></div>',
    "df = df.merge(other, on='id').groupby('region').mean()",
    "while true; do\n  curl -s $URL\ndone",
    "func Sum(xs []int) int {\n\tt := 0\n\tfor _, x := range xs { t += x }\n\treturn t\n}",
    'fn main() { let s = String::from("a"); let t = s; println!("{}", s); }',
    ".card { display: flex; margin: 0 auto }",
    "class Stack:\n    def __init__(self):\n        self.items = []\n    def pop(self): return self.items.pop(0)",
    "try:\n    value = int(text)\nexcept:\n    pass",
    "UPDATE users SET active = 1 WHERE last_login > NOW()",
    "useEffect(() => { setCount(count + 1) })",
    "lambda x: x ** 2 if x > 0 else None",
    "git rebase -i HEAD~3",
)

SIGNATURES = (
    'def median(values: list[float]) -> float:\n    """Return the median of the values."""',
    'def parse_duration(text: str) -> int:\n    """Parse "1h30m".\n\n    parse_duration("1h") -> 3600\n    """',
    "/**\n * Returns the longest common prefix of the strings.\n */\nfunction longestPrefix(strings) {",
    "public static boolean isPrime(int n) {\n    // TODO",
    "// Reverse the linked list and return its new head\nListNode* reverse(ListNode* head) {",
    "func Retry(ctx context.Context, n int, f func() error) error {",
    "# write a function that returns the n largest items\ndef largest(items, n):",
    "class LRUCache:\n    def __init__(self, capacity: int):\n        ...\n    def get(self, key: int) -> int:",
)

PASTED = 0.08
"""Share of the English prompts that are followed by pasted text: what is asked must not drown in it."""

_SLOT = re.compile(r"\{(\w+)\}")
_CHOICE = re.compile(r"(?<!\\)\(([^()]*(?<!\\)\|[^()]*)\)")


class Row(NamedTuple):
    """One labelled prompt: ``code`` is 1 where code is the main thing asked for, ``kind`` is None where unknown."""

    prompt: str
    code: int
    kind: str | None
    source: str
    lang: str
    licence: str


def generate(seed: int = 7, *, each: int = 40, other: int = 24) -> list[Row]:
    """Return distinct prompts, up to ``each`` an English template and ``other`` one of another language."""
    rng = random.Random(seed)  # noqa: S311 (training data, not secrets)
    templates, slots = _read()
    rows: dict[str, Row] = {}
    for kind, lang, template in templates:
        for _ in range(each if lang == "en" else other):
            prompt = _style(_fill(template, slots, rng), rng)
            if lang == "en" and rng.random() < PASTED:
                pasted = rng.choices(slots["para"] + slots["fact"], k=rng.randint(1, 12))
                prompt = f"{prompt}\n\n{' '.join(pasted)}"
            rows.setdefault(prompt, Row(prompt, int(kind == "code"), kind, f"templates_{lang}", lang, "CC0-1.0"))
    return [*rows.values(), *_singles()]


def _singles() -> list[Row]:
    rows = []
    for line in PROMPTS.read_text("utf-8").splitlines():
        if not line.startswith("#"):
            kind, lang, prompt = line.split("|", 2)
            prompt = prompt.replace("\\n", "\n")
            rows.append(Row(prompt, int(kind == "code"), kind, f"prompts_{lang}", lang, "CC0-1.0"))
    return rows


def _read() -> tuple[list[tuple[str, str, str]], dict[str, list[str]]]:
    templates: list[tuple[str, str, str]] = []
    slots = {"nl": ["\n", "\n", "\n\n", " "], "snippet": list(SNIPPETS), "sig": list(SIGNATURES)}
    for line in TEMPLATES.read_text("utf-8").splitlines():
        if line.startswith("slot="):
            name, *values = line[5:].split("|")
            slots[name] = values
        elif line and not line.startswith("#"):
            kind, lang, template = line.split("|", 2)
            templates.append((kind, lang, template))
    return templates, slots


def _fill(template: str, slots: dict[str, list[str]], rng: random.Random) -> str:
    """Choose one of every ``(a|b)``, then fill the slots."""
    while _CHOICE.search(template):
        template = _CHOICE.sub(lambda found: rng.choice(found[1].split("|")), template, count=1)
    text = _SLOT.sub(lambda found: rng.choice(slots[found[1]]), template)
    return text.replace("\\.", ".").replace("\\(", "(").replace("\\)", ")")


def _style(text: str, rng: random.Random) -> str:
    """Write some prompts as people in a hurry do, or politely."""
    dice = rng.random()
    if dice < 0.12:  # noqa: PLR2004 (shares of each style)
        return text.lower()
    if dice < 0.17:  # noqa: PLR2004
        return text.rstrip("?.!")
    if dice < 0.20 and text.isascii():  # noqa: PLR2004
        return f"{rng.choice(('Hi, ', 'Hello! ', 'Please: ', 'Hey, quick one. '))}{text}"
    return text
