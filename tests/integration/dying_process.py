"""`softcam` with two processes, one of which is killed in the third epoch, as by a system short of memory.

Usage: dying_process.py ARGUMENTS
"""

from __future__ import annotations

import signal
import sys
from typing import Any

from torch import Tensor

from softcam.cli import main
from softcam.training import Learner

original = Learner.training_step


def training_step(self: Learner, batch: Any, batch_idx: int) -> Tensor:
    """Take the step, unless it is the one to die in."""
    if (self.current_epoch, self.global_rank, batch_idx) == (2, 1, 1):
        signal.raise_signal(signal.SIGKILL)
    return original(self, batch, batch_idx)


# Also in the processes that this one starts, which import this file again.
Learner.training_step = training_step  # type: ignore[method-assign]

if __name__ == "__main__":
    sys.exit(main())
