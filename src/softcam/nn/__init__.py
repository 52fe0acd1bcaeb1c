"""The method: features, class evidence layer, evidence and penalties. Needs torch and nothing else."""

from softcam.nn.augment import AUGMENTATIONS, Augmented
from softcam.nn.build import HeadChoice
from softcam.nn.convert import convert, input_shape, rebuild
from softcam.nn.ensemble import Ensemble
from softcam.nn.evidence import Evidence
from softcam.nn.features import Features, TimmFeatures, WatchedFeatures
from softcam.nn.heads import (
    AttentionEvidence,
    EvidenceHead,
    LinearEvidence,
    NormEvidence,
    PointwiseEvidence,
    SeveralEvidence,
)
from softcam.nn.locality import theoretical_receptive_field
from softcam.nn.model import EvidenceModule, SoftCAM, pool_features
from softcam.nn.modes import evaluating, is_batch_norm
from softcam.nn.penalties import ElasticNet
from softcam.nn.regions import Placement, Region, Regions, find_regions
from softcam.nn.replay import check_cut, resolve_module, run_from, run_until
from softcam.nn.report import ConversionReport

__all__ = [
    "AUGMENTATIONS",
    "AttentionEvidence",
    "Augmented",
    "ConversionReport",
    "ElasticNet",
    "Ensemble",
    "Evidence",
    "EvidenceHead",
    "EvidenceModule",
    "Features",
    "HeadChoice",
    "LinearEvidence",
    "NormEvidence",
    "Placement",
    "PointwiseEvidence",
    "Region",
    "Regions",
    "SeveralEvidence",
    "SoftCAM",
    "TimmFeatures",
    "WatchedFeatures",
    "check_cut",
    "convert",
    "evaluating",
    "find_regions",
    "input_shape",
    "is_batch_norm",
    "pool_features",
    "rebuild",
    "resolve_module",
    "run_from",
    "run_until",
    "theoretical_receptive_field",
]
