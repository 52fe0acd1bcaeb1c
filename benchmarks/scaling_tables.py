"""The tables of `docs/explanation/scaling.md`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

STAGES = {
    "read": "read",
    "decode": "decode",
    "resize": "resize",
    "forward": "forward pass",
    "write": "evidence to disk",
    "total": "**all**",
}
SCENARIOS = {
    "alike": "workers all alike",
    "stragglers": "speeds differ by a fifth",
    "failures": "a failure per machine in 20 hours",
    "slow network": "0.1 Gbit/s per machine",
    "slow store": "2 Gbit/s for all machines",
}
ASSUMPTIONS = {
    "cores_of_machine": "cores of a machine",
    "network_gbit": "network of a machine, Gbit/s",
    "store_gbit": "store of all machines, Gbit/s",
    "start_seconds": "seconds until the first image",
    "failures_per_machine_hour": "failures of a machine per hour",
    "repair_seconds": "seconds until a failed machine is back",
    "spread_of_speed": "standard deviation of the logarithm of a worker's speed",
    "images_per_task": "images in a task",
    "price_per_core_hour": "price of a core for an hour, in any currency",
}


def list_tables(result: Mapping[str, Any] | None) -> dict[str, Callable[[], str]]:
    """Return the tables by the names of their places in the page.

    Args:
        result: What `benchmarks/results/scaling.json` holds; None if it was not measured, which each table then says.
    """
    tables = {
        "stages": stages,
        "workers": workers,
        "checks": checks,
        "costs": costs,
        "storage": storage,
        "assumptions": assumptions,
    }
    return {f"scaling-{name}": lambda table=table: _render(table, result) for name, table in tables.items()}  # type: ignore[misc]


def _render(table: Callable[[Mapping[str, Any]], list[str]], result: Mapping[str, Any] | None) -> str:
    if result is None:
        return "Not measured yet: `python benchmarks/scaling.py`.\n"
    return "\n".join(table(result)) + "\n"


def stages(result: Mapping[str, Any]) -> list[str]:
    rows, setting = result["stages"], result["setting"]
    machine = result["environment"]["machine"]["processor"]
    return [
        (
            f"Milliseconds per image, median and quartiles: JPEGs of {setting['side']} px "
            f"({rows[0]['image_bytes'] / 1000:.0f} kB), {setting['classes']} classes, batches of "
            f"{setting['batch_size']}, torch in float32 with one thread, {machine}:"
        ),
        "",
        *_head(["stage", *(row["model"] for row in rows)]),
        *(
            _line([title, *(f"{row[f'{stage}_ms']:.1f} ({_range(row[f'{stage}_ms_quartiles'], 1)})" for row in rows)])
            for stage, title in STAGES.items()
        ),
        _line(["images per second and core", *(f"{1000 / row['total_ms']:.1f}" for row in rows)]),
    ]


def workers(result: Mapping[str, Any]) -> list[str]:
    return [
        *_head(["network", "workers", "images per second, quartiles", "formula", "measured / formula"]),
        *(
            _line([
                row["model"], row["workers"],
                f"{row['per_second']:.1f} ({_range(row['per_second_quartiles'], 1)})",
                f"{row['predicted']:.1f}", f"{row['share_of_predicted']:.2f}",
            ])
            for row in result["workers"]
        ),
    ]  # fmt: skip


def checks(result: Mapping[str, Any]) -> list[str]:
    return [
        *_head(["network", "case", "bound by", "formula, hours", "simulation / formula, range"]),
        *(
            _line([
                row["model"], SCENARIOS[row["scenario"]], row["bound"], f"{row['forecast_hours']:.2f}",
                f"{row['simulated_to_forecast']:.3f} ({_range(row['simulated_to_forecast_range'], 3)})",
            ])
            for row in result["checks"]
        ),
    ]  # fmt: skip


def costs(result: Mapping[str, Any]) -> list[str]:
    machines = [one["machines"] for one in result["costs"][0]["times"]]
    titles = [f"{count} machine{'s' * (count > 1)}" for count in machines]
    return [
        f"Machines of {result['assumptions']['cores_of_machine']} cores; in brackets what bounds the rate:",
        "",
        *_head(["network", "images", "core hours", "price", "read", "evidence of all classes", *titles]),
        *(
            _line([
                row["model"], f"{row['images']:,}", f"{row['core_hours']:,.0f}", f"{row['price']:,.0f}",
                _terabytes(row["read_terabytes"]), _terabytes(row["written_terabytes"]),
                *(f"{_duration(one['hours'])} ({one['bound']})" for one in row["times"]),
            ])
            for row in result["costs"]
        ),
    ]  # fmt: skip


def storage(result: Mapping[str, Any]) -> list[str]:
    rows = result["storage"]
    return [
        *_head(["cells", "classes", "float32", "float16", "a billion, float32", "a billion, float16"]),
        *(
            _line([
                f"{row['grid']} x {row['grid']}", row["classes"],
                *(f"{row[f'{kind}_bytes'] / 1000:,.1f} kB" for kind in ("float32", "float16")),
                *(_terabytes(row[f"{kind}_bytes"] / 1000) for kind in ("float32", "float16")),
            ])
            for row in rows
        ),
    ]  # fmt: skip


def assumptions(result: Mapping[str, Any]) -> list[str]:
    found = result["assumptions"]
    return [*_head(["assumed", "value"]), *(_line([title, f"{found[name]:g}"]) for name, title in ASSUMPTIONS.items())]


def _head(titles: Sequence[str]) -> list[str]:
    return [_line(titles), "|---" * len(titles) + "|"]


def _line(cells: Sequence[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _range(ends: Sequence[float], digits: int) -> str:
    return f"{ends[0]:.{digits}f} to {ends[1]:.{digits}f}"


def _terabytes(value: float) -> str:
    return f"{value:,.1f} TB" if value >= 1 else f"{1000 * value:,.1f} GB"


def _duration(hours: float) -> str:
    return f"{hours / 24:,.1f} days" if hours >= 48 else f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.0f} min"
