"""The weights of an arm, from wherever they are."""

from __future__ import annotations

from pathlib import Path

from rlvr_limit import checkpoint, records
from rlvr_limit.models.decoder import Params
from rlvr_limit.records.storage.folders import brought
from rlvr_limit.study.arms import EvaluatedArm
from rlvr_limit.study.prepared import Study


def load_weights(study: Study, entry: EvaluatedArm) -> Params:
    """The weights of an arm; their hash is noted in the manifest, which refuses others under the same name."""
    arm, setup = study.settings.arms[study.source(entry).arm], study.setups[entry.arm]
    if not arm.weights:
        folder = study.weights(entry)
    else:
        folder = checkpoint.resolve(arm.weights, arm.revision, with_weights=True) if setup.folder else Path(arm.weights)
    read = checkpoint.load_hf if setup.folder else checkpoint.load_params
    with brought(folder) as here:
        params = read(here, setup.model, study.mesh)
    digest = checkpoint.weights_sha256(params)
    fact = f"arms.{entry.name}.weights_sha256"
    study.hosts.check_equal(fact, digest)
    if study.hosts.is_first:
        records.update_manifest(study.root, fact, digest)
    return params


def is_given(study: Study, entry: EvaluatedArm) -> bool:
    """Whether an arm's weights are given, or an endpoint's, not made here."""
    arm = study.settings.arms[study.source(entry).arm]
    return bool(arm.weights or arm.endpoint)
