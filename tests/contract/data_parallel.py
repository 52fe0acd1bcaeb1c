"""One of two processes that train a converted network together; `test_module` starts both.

Usage: data_parallel.py RANK FOLDER OPTIONS, these being keywords of `convert` as JSON
"""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from softcam.backbones import create_black_box
from softcam.bundle import fingerprint
from softcam.nn import ElasticNet, convert


def main(rank: int, folder: Path, options: dict[str, Any]) -> None:
    """Take two steps and write down what came of them."""
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    torch.manual_seed(0)
    black_box = create_black_box("torchvision:googlenet", num_classes=5)
    model = convert(black_box, images=torch.randn(2, 3, 64, 64), num_classes=3, certify=False, **options).train()
    before = fingerprint(dict(model.named_parameters()))
    parallel = DistributedDataParallel(model.with_evidence())
    optimizer = torch.optim.SGD(parallel.parameters(), lr=0.1)
    torch.manual_seed(rank + 1)
    losses = []
    # The second forward is where an unused parameter of the first would be reported.
    for _ in range(2):
        evidence = parallel(torch.randn(4, 3, 64, 64))
        loss = F.cross_entropy(evidence.logits, torch.tensor([0, 1, 2, 0])) + ElasticNet(l1=1e-3)(evidence.maps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    without = [name for name, value in model.named_parameters() if value.requires_grad and value.grad is None]
    result = {
        "without_gradient": without,
        "losses": losses,
        "weights_before": before,
        "weights": fingerprint(dict(model.named_parameters())),
    }
    (folder / f"{rank}.json").write_text(json.dumps(result), encoding="utf-8")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))
