"""Proof that the cheaper model is as good."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_settings import NoDecode

from app.settings.types import CommaList, json_object

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Margin = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]


class ParityOptions(BaseModel):
    """What ``PARITY__<ROLE>__<OPTION>`` may say of a role."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reference: str = Field("", description="backend/model-id that the role's answers are compared with")
    margin: Margin | None = Field(None, description="in place of PARITY_MARGIN")
    share: Share | None = Field(None, description="in place of SHADOW_SHARE")


class ParitySettings(BaseModel):
    """This group's settings; see Settings."""

    parity: Annotated[dict[str, ParityOptions], NoDecode, BeforeValidator(json_object)] = Field(
        {}, description="PARITY__<ROLE>__REFERENCE: see ParityOptions"
    )
    parity_margin: Margin = Field(0.02, description="a loss against the reference up to this is as good")
    parity_alpha: Annotated[float, Field(gt=0, le=0.5)] = Field(
        0.05, description="chance of a wrong certificate, and of a wrong breach, at most"
    )
    parity_max_samples: int = Field(
        20_000, ge=1, description="samples after which a test without a decision is inconclusive"
    )
    parity_rollback: bool = Field(
        default=True, description="false: a breach is told, and the role is not set back to the reference"
    )
    shadow_share: Share = Field(0.02, description="share of a role's calls that the reference answers as well")
    shadow_usd_per_day: float = Field(
        1.0, ge=0, allow_inf_nan=False, description="what references and judges may cost a day (UTC), all hosts"
    )
    shadow_opt_out: CommaList = Field((), description="comma list of tenants whose calls are never used for parity")
    shadow_slots: int = Field(2, ge=1, le=64, description="shadow calls at once, per worker")
    judge_reliability: Annotated[float, Field(gt=0, le=1)] = Field(
        0.7, description="share of a true difference that the judge's verdicts show at least"
    )
    judge_retest_share: Share = Field(0.05, description="share of verdicts asked for twice, to measure the judge")
    router_labels: bool = Field(
        default=True, description="false: of samples nothing is kept that a classifier could learn from"
    )
    classifier_candidate: str = Field(
        "", description="weights of a classifier whose verdicts are counted beside and not used"
    )
