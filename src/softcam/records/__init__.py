"""Records that can be checked later: what a model said of which image, signed, in a chain that shows every change."""

from __future__ import annotations

from softcam.records.chain import START, Chain, ChainWriter, Record, now, read_chain, write_chain
from softcam.records.check import ChainReport, Fault, check_chain
from softcam.records.facts import describe_context, describe_prediction, digest_array, digest_json
from softcam.records.keys import Signer, Verifier, create_key, load_signer, load_verifier
from softcam.records.recompute import Comparison, recompute

__all__ = [
    "START",
    "Chain",
    "ChainReport",
    "ChainWriter",
    "Comparison",
    "Fault",
    "Record",
    "Signer",
    "Verifier",
    "check_chain",
    "create_key",
    "describe_context",
    "describe_prediction",
    "digest_array",
    "digest_json",
    "load_signer",
    "load_verifier",
    "now",
    "read_chain",
    "recompute",
    "write_chain",
]
