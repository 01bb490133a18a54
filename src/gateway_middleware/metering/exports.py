"""Daily sums as CSV for finance: plain, or in the columns of FOCUS (FinOps Open Cost and Usage Specification) 1.2."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import date, timedelta

from gateway_middleware.metering.journal.daily_total import DailyTotal

_PLAIN = DailyTotal.__struct_fields__
_SERVICE = "Model Gateway"
_FOCUS = (
    "BilledCost", "BillingAccountId", "BillingAccountName", "BillingAccountType", "BillingCurrency", "BillingPeriodEnd",
    "BillingPeriodStart", "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargeFrequency", "ChargePeriodEnd",
    "ChargePeriodStart", "ConsumedQuantity", "ConsumedUnit", "ContractedCost", "EffectiveCost", "InvoiceIssuerName",
    "ListCost", "PricingCategory", "PricingQuantity", "PricingUnit", "ProviderName", "PublisherName", "ServiceCategory",
    "ServiceName", "ServiceSubcategory", "SubAccountId", "SubAccountName", "SubAccountType", "x_Closed", "x_Orphaned",
    "x_Voided", "x_Unpriced", "x_InputTokens", "x_OutputTokens", "x_CachedInputTokens",
)  # fmt: skip
"""What is mandatory in FOCUS 1.2, what of the rest is known, and our own."""


def plain_csv(totals: Iterable[DailyTotal]) -> str:
    """A row for each day and tenant under the names of `DailyTotal`."""
    return _written(_PLAIN, ([getattr(total, name) for name in _PLAIN] for total in totals))


def focus_csv(totals: Iterable[DailyTotal], *, account: str) -> str:
    """A charge for each day and tenant. `account` names the gateway: it bills, and each tenant is a sub-account of it.

    What has no known price is in `x_Unpriced` and in no cost.
    """
    return _written(_FOCUS, ([_charge(total, account)[name] for name in _FOCUS] for total in totals))


def _charge(total: DailyTotal, account: str) -> dict[str, object]:
    day = date.fromisoformat(total.day)
    month = day.replace(day=1)
    tokens = total.input_tokens + total.output_tokens
    return {
        **dict.fromkeys(("BilledCost", "ContractedCost", "EffectiveCost", "ListCost"), total.cost),
        **dict.fromkeys(("InvoiceIssuerName", "ProviderName", "PublisherName", "ServiceName"), _SERVICE),
        **dict.fromkeys(("ConsumedQuantity", "PricingQuantity"), tokens),
        **dict.fromkeys(("ConsumedUnit", "PricingUnit"), "Tokens"),
        "BillingAccountId": account,
        "BillingAccountName": account,
        "BillingAccountType": "Gateway",
        "BillingCurrency": "USD",
        "BillingPeriodStart": _midnight(month),
        "BillingPeriodEnd": _midnight((month + timedelta(days=31)).replace(day=1)),
        "ChargeCategory": "Usage",
        "ChargeClass": None,
        "ChargeDescription": f"Calls of models by {total.tenant}",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodStart": _midnight(day),
        "ChargePeriodEnd": _midnight(day + timedelta(days=1)),
        "PricingCategory": "Standard",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceSubcategory": "Generative AI",
        "SubAccountId": total.tenant,
        "SubAccountName": total.tenant,
        "SubAccountType": "Tenant",
        "x_Closed": total.closed,
        "x_Orphaned": total.orphaned,
        "x_Voided": total.voided,
        "x_Unpriced": total.unpriced,
        "x_InputTokens": total.input_tokens,
        "x_OutputTokens": total.output_tokens,
        "x_CachedInputTokens": total.cached_input_tokens,
    }


def _midnight(day: date) -> str:
    return f"{day.isoformat()}T00:00:00Z"


def _written(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()
