"""GET /v1/models. Promises: states as the supervisor knows them, figures as the manifest measured them."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter

from saccade.models.contract.extras import ExtraKind
from saccade.models.contract.replay import REPLAY_FILE
from saccade.service.api.catalog import ServingCatalog, default_version, labels_of
from saccade.service.api.http.schemas import (
    BatchFigure,
    CanaryInfo,
    EngineInfo,
    Figure,
    InstanceInfo,
    ModelInfo,
    ModelList,
    OperatingFigure,
    ServingInfo,
    ShadowInfo,
    SpeedFigure,
    VersionInfo,
)
from saccade.service.api.http.version_files import REPORT_FILE, has_file
from saccade.service.core import VersionKey, VersionState
from saccade.service.errors import NotFound
from saccade.service.ipc.messages import EngineStatus, ModelStatus, RefusedStatus, VersionStatus


def model_router(catalog: ServingCatalog) -> APIRouter:
    """Routes over the current snapshot."""
    router = APIRouter(tags=["models"])

    @router.get("/v1/models")
    async def list_models() -> ModelList:
        return ModelList(models=[_model_info(catalog, name) for name in _names(catalog)])

    @router.get("/v1/models/{model}")
    async def show_model(model: str) -> ModelInfo:
        names = _names(catalog)
        if model not in names:
            raise NotFound(f"no model {model!r}; there are: {', '.join(names) or 'none yet'}")
        return _model_info(catalog, model)

    return router


def _names(catalog: ServingCatalog) -> list[str]:
    snapshot = catalog.snapshot
    documents = {status.model for status in snapshot.models if status.problem}  # there may be no version beside it
    versions = {status.model for status in snapshot.versions} | {status.model for status in snapshot.refused}
    return sorted(versions | documents)


def _refused_info(catalog: ServingCatalog, status: RefusedStatus) -> VersionInfo:
    """By its very name, which need not be a number: it may be empty, or a document's."""
    failed = VersionStatus(status.model, 0, "", "", VersionState.FAILED.value, status.reason, "")
    return _version_info(catalog, failed).model_copy(update={"version": status.name})


def _model_info(catalog: ServingCatalog, model: str) -> ModelInfo:
    statuses = sorted(
        (each for each in catalog.snapshot.versions if each.model == model), key=lambda item: -item.version
    )
    refused = sorted((each for each in catalog.snapshot.refused if each.model == model), key=lambda item: item.name)
    ready = [status.version for status in statuses if status.state == VersionState.READY]
    serving = catalog.serving(model)
    default = default_version(ready, serving)
    shown = default if default is not None else max((status.version for status in statuses), default=0)
    manifest = catalog.manifest(VersionKey(model, shown))
    return ModelInfo(
        name=model,
        task=manifest.task.task.value if manifest else None,
        labels={label: str(version) for label, version in labels_of(ready, serving).items()},
        class_labels=list(manifest.labels) if manifest else [],
        default_version=None if default is None else str(default),
        serving=serving_info(serving) if serving.generation or serving.problem else None,
        versions=[
            *(_version_info(catalog, status) for status in statuses),
            *(_refused_info(catalog, status) for status in refused),
        ],
    )


def serving_info(status: ModelStatus) -> ServingInfo:
    policy: Literal["follow", "hold"] = "hold" if status.stable else "follow"
    canary = CanaryInfo(version=str(status.canary), share=status.share) if status.canary else None
    shadow = ShadowInfo(version=str(status.shadow), sample=status.sample) if status.shadow else None
    return ServingInfo(
        generation=status.generation,
        policy=policy,
        canary=canary,
        shadow=shadow,
        rollout=status.rollout,
        objective_ms=1000 * status.objective_s or None,
        reason=status.reason,
        problem=status.problem,
    )


def _version_info(catalog: ServingCatalog, status: VersionStatus) -> VersionInfo:
    manifest = catalog.manifest(VersionKey(status.model, status.version))
    variant = manifest.variant(status.variant) if manifest else None
    judged = variant if manifest and manifest.judged else None
    return VersionInfo(
        version=str(status.version),
        state=VersionState(status.state).value,
        reason=status.reason,
        notice=status.notice,
        variant=status.variant,
        device=",".join(dict.fromkeys(item.device for item in status.instances if item.instance_id)),
        instances=[
            InstanceInfo(
                device=item.device,
                state=VersionState(item.state).value,
                reason=item.reason,
                variant=item.variant,
                backend=item.backend,
                rung=item.ladder_level,
            )
            for item in status.instances
        ],
        engines=[_engine_info(item) for item in status.engines],
        on_demand=status.on_demand,
        load_seconds=round(status.load_seconds, 3) if status.load_seconds else None,
        digest=status.manifest_sha256,
        signed_by=status.signed_by or None,
        weights=manifest.weights if manifest else None,
        batchable=manifest.batchable if manifest else True,
        judged=manifest.judged if manifest else None,
        metric=Figure.model_validate(judged.metric.model_dump()) if judged else None,
        operating_point=OperatingFigure.model_validate(judged.operating_point.model_dump())
        if judged and judged.operating_point
        else None,
        has_report=manifest is not None and has_file(manifest, REPORT_FILE),
        gives=_gives(status),
        has_samples=manifest is not None and has_file(manifest, REPLAY_FILE),
        latency=[
            BatchFigure(**figure.model_dump(include=set(BatchFigure.model_fields)))
            for figure in (variant.latency if variant else ())
        ],
        choice=status.choice,
        speeds=[
            SpeedFigure(
                variant=item.variant,
                against=item.against,
                ratio=item.ratio,
                ci_low=item.ci_low,
                ci_high=item.ci_high,
                confidence=item.confidence,
                rounds=item.rounds,
                text=item.text,
                measured="here" if item.is_from_here else "at export",
            )
            for item in status.speeds
        ],
    )


def _gives(status: VersionStatus) -> list[Literal["explain", "trust"]]:
    """What at least one ready instance of a version computes when asked."""
    kinds = [kind for kind in ExtraKind if any(instance.gives & kind.bit for instance in status.instances)]
    return [kind.value for kind in kinds]


def _engine_info(status: EngineStatus) -> EngineInfo:
    return EngineInfo.model_validate(
        {
            "device": status.device,
            "variant": status.variant,
            "state": status.state,
            "stage": status.stage,
            "progress": status.share,
            "plan": status.plan,
            "reason": status.reason,
            "images_per_s": status.images_per_s,
        }
    )
