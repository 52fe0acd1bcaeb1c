"""What a distributed run may be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Evidence = Literal["float32", "float16", "none"]


@dataclass(frozen=True)
class RaySettings:
    """How a run is spread over machines.

    Args:
        workers: Most workers at a time; default: one per GPU, or one per CPU where there is no GPU or `predictor` asks
            for the CPU.
        address: A running cluster: `auto`, or host and port of its head. Default: the variable RAY_ADDRESS where it is
            set, else a Ray of its own on this machine, which ends with the run.
        evidence: Type in which maps are stored; "none" leaves them out.
        threads: Threads of the model in each worker.
        predictor: Further arguments of every worker's `Predictor`, such as `batch_size`.

    Raises:
        ValueError: If a value is out of range.
    """

    workers: int | None = None
    address: str | None = None
    evidence: Evidence = "float32"
    threads: int = 1
    predictor: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("workers", "threads"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"Expected `{name}` to be a whole number of at least 1, but got {value!r}.")
        if self.evidence not in get_args(Evidence):
            known = ", ".join(get_args(Evidence))
            raise ValueError(f"Expected `evidence` to be one of {known}, but got {self.evidence!r}.")
        if self.address is not None and self.address.startswith("ray://"):
            raise ValueError(
                f"Expected `address` to be that of a cluster this machine belongs to, but got {self.address!r}. "
                "Run the command on a node of the cluster, or submit it as a job."
            )

    @property
    def wants_gpu(self) -> bool | None:
        """Whether workers need a GPU; None to take them where there are some."""
        device = self.predictor.get("device")
        return None if device is None else str(device).startswith("cuda")
