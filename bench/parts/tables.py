"""What bench/gateway prints. Pure: figures in, Markdown out."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from parts.servers import Server

Figures = dict[tuple[str, str, int], dict[str, float]]
"""By (server, part, connections): every figure's median."""
_PEERS = ("LiteLLM", "Portkey")


def all_tables(found: Figures, servers: Sequence[Server]) -> str:
    """Return everything as Markdown."""
    names = [server.name for server in servers]
    loads = sorted({key[2] for key in found if key[1] == "calls"})
    parts = [calls(found, names, each) for each in loads]
    parts += [streams(found, names), paced(found, names), idle(found, names), programs(found, servers)]
    return "\n\n".join(part for part in parts if part)


def calls(found: Figures, names: Sequence[str], connections: int) -> str:
    """Return the table of plain calls at one concurrency."""
    rows = _rows(found, names, "calls", connections)
    direct = rows.get("direct")
    peers = [peer for peer in _PEERS if peer in rows]
    head = ["calls/s", "% of nginx", *(f"x {peer}" for peer in peers), "CPU us a call", "p50 us", "p99 us", "p99/p50"]
    head += ["+p50 us", "+p99 us", "+p50 x nginx's"]

    def cells(row: dict[str, float]) -> list[str]:
        nginx = rows.get("nginx")
        added = row["p50"] - direct["p50"] if direct else 0.0
        own = nginx["p50"] - direct["p50"] if nginx and direct else 0.0
        return [
            f"{row['calls_s']:,.0f}",
            _ratio(100 * row["calls_s"], nginx and nginx["calls_s"], ".1f"),
            *(_ratio(row["calls_s"], rows[peer]["calls_s"], ".1f") for peer in peers),
            f"{row['cpu_us']:.0f}" if row["cpu_us"] else "-",
            f"{row['p50']:,.0f}",
            f"{row['p99']:,.0f}",
            f"{row['p99'] / max(row['p50'], 1):.1f}",
            f"{added:,.0f}",
            f"{row['p99'] - (direct['p99'] if direct else 0.0):,.0f}",
            _ratio(added, own, ".1f"),
        ]

    return _table(f"plain, {connections}", head, rows, cells)


def streams(found: Figures, names: Sequence[str]) -> str:
    """Return the table of streams that come as fast as they can."""
    rows, firsts = _rows(found, names, "streams", 16), _rows(found, names, "streams", 1)
    nginx = rows.get("nginx")

    def cells(row: dict[str, float]) -> list[str]:
        name = next(each for each, its in rows.items() if its is row)
        return [
            f"{row['events_s']:,.0f}",
            _ratio(row["events_s"], nginx and nginx["events_s"], ".2f"),
            f"{row['cpu_us']:.0f}" if row["cpu_us"] else "-",
            f"{firsts[name]['first_p50']:,.0f} / {firsts[name]['first_p99']:,.0f}" if name in firsts else "-",
            f"{row['first_p50']:,.0f}",
        ]

    head = ["events/s", "x nginx", "CPU us a stream", "first byte alone, p50 / p99 us", "first byte at 16, p50 us"]
    return _table("streams of 100 events, 16", head, rows, cells)


def paced(found: Figures, names: Sequence[str]) -> str:
    """Return the table of streams of 100 events a second."""
    rows = _rows(found, names, "paced", 64)
    nginx = rows.get("nginx")

    def cells(row: dict[str, float]) -> list[str]:
        ratios = [_ratio(row[each], nginx and nginx[each], ".2f") for each in ("delay_p50", "delay_p99")]
        return [f"{row['events_s']:,.0f}", f"{row['delay_p50']:,.0f}", f"{row['delay_p99']:,.0f}", *ratios]

    head = ["events/s", "delay p50 us", "delay p99 us", "p50 x nginx", "p99 x nginx"]
    return _table("64 streams of 100 events/s", head, rows, cells)


def idle(found: Figures, names: Sequence[str]) -> str:
    """Return the table of open streams that say nothing."""
    count = max((key[2] for key in found if key[1] == "idle"), default=0)
    rows = _rows(found, names, "idle", count)
    return _table(f"{count:,} open streams", ["kB each"], rows, lambda row: [f"{row['kb_each']:.1f}"])


def programs(found: Figures, servers: Sequence[Server]) -> str:
    """Return the table of start and memory."""
    rows = {}
    for server in servers:
        if server.pid:
            busy = busy_mb(found, server.name)
            rows[server.name] = {"ready": server.ready_s, "idle": server.idle_mb, "busy": busy}
    head = ["ready s", "memory before load MB", "under load MB"]
    return _table(
        "start and memory", head, rows, lambda row: [f"{row['ready']:.2f}", f"{row['idle']:.0f}", f"{row['busy']:.0f}"]
    )


def busy_mb(found: Figures, name: str) -> float:
    """Return the most memory that a server had under any load; 0 where there was none."""
    return max((its["rss_mb"] for key, its in found.items() if key[0] == name and key[1] != "idle"), default=0.0)


def _rows(found: Figures, names: Iterable[str], part: str, connections: int) -> dict[str, dict[str, float]]:
    return {name: found[name, part, connections] for name in names if (name, part, connections) in found}


def _ratio(value: float, base: float | None, form: str) -> str:
    return f"{value / base:{form}}" if base and base > 0 else "-"


def _table(
    title: str,
    head: Sequence[str],
    rows: dict[str, dict[str, float]],
    cells: Callable[[dict[str, float]], list[str]],
) -> str:
    if not rows:
        return ""
    lines = [f"| {title} | {' | '.join(head)} |", f"|---{'|---' * len(head)}|"]
    lines += [f"| {name} | {' | '.join(cells(row))} |" for name, row in rows.items()]
    return "\n".join(lines)
