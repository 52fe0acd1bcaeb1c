"""Class evidence layers: what stands in place of pooling and classifier."""

from softcam.nn.heads.attention import AttentionEvidence
from softcam.nn.heads.base import EvidenceHead
from softcam.nn.heads.pointwise import CellNorm, PerCell, PointwiseEvidence
from softcam.nn.heads.pooled import LinearEvidence, NormEvidence
from softcam.nn.heads.several import SeveralEvidence

__all__ = [
    "AttentionEvidence",
    "CellNorm",
    "EvidenceHead",
    "LinearEvidence",
    "NormEvidence",
    "PerCell",
    "PointwiseEvidence",
    "SeveralEvidence",
]
