"""CSV for finance: daily sums, charges, and charges in the columns of FOCUS 1.2.

FOCUS is the FinOps Open Cost and Usage Specification.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from typing import TextIO

from gateway_middleware.metering.charges import NOT_SPLIT, Charge
from gateway_middleware.metering.journal.daily_total import DailyTotal
from gateway_middleware.metering.prices.parts import REQUEST

_PLAIN = DailyTotal.__struct_fields__
_CHARGES = (
    "day", "tenant", "key_id", "provider", "deployment", "kind", "quantity", "unit_price", "cost", "unpriced",
    "paid_by", "tags", "price_version",
)  # fmt: skip
_SERVICE = "Model Gateway"
_FOCUS = (
    "BilledCost", "BillingAccountId", "BillingAccountName", "BillingAccountType", "BillingCurrency", "BillingPeriodEnd",
    "BillingPeriodStart", "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargeFrequency", "ChargePeriodEnd",
    "ChargePeriodStart", "ConsumedQuantity", "ConsumedUnit", "ContractedCost", "ContractedUnitPrice", "EffectiveCost",
    "InvoiceIssuerName", "ListCost", "ListUnitPrice", "PricingCategory", "PricingQuantity", "PricingUnit",
    "ProviderName", "PublisherName", "ResourceId", "ResourceName", "ResourceType", "ServiceCategory", "ServiceName",
    "ServiceSubcategory", "SkuId", "SkuMeter", "SkuPriceDetails", "SkuPriceId", "SubAccountId", "SubAccountName",
    "SubAccountType", "Tags", "x_PaidBy", "x_PriceVersion", "x_UnpricedRequests",
)  # fmt: skip
"""What is mandatory in FOCUS 1.2, what of the rest is known, and our own."""
_METERS = {
    "input": "Input Tokens",
    "cached_input": "Cached Input Tokens",
    "cache_write": "Cache Write Tokens",
    "cache_write_1h": "Cache Write Tokens (1 Hour)",
    "output": "Output Tokens",
    "reasoning": "Reasoning Tokens",
    REQUEST: "Requests",
    NOT_SPLIT: "Tokens",
}


def write_totals(out: TextIO, totals: Iterable[DailyTotal]) -> None:
    """A row for each day and tenant under the names of `DailyTotal`."""
    _write(out, _PLAIN, ([getattr(total, name) for name in _PLAIN] for total in totals))


def write_charges(out: TextIO, charges: Iterable[Charge]) -> None:
    """A row for each charge under the names of `Charge`, and its provider."""
    _write(out, _CHARGES, ([getattr(charge, name) for name in _CHARGES] for charge in charges))


def write_focus(out: TextIO, charges: Iterable[Charge], *, account: str) -> None:
    """A row for each charge. `account` names the gateway: it bills, and each tenant is a sub-account of it.

    What has no known price is in `x_UnpricedRequests` and in no cost.
    """
    rows = (_row(charge, account) for charge in charges)
    _write(out, _FOCUS, ([row[name] for name in _FOCUS] for row in rows))


def _row(charge: Charge, account: str) -> dict[str, object]:
    provider = charge.provider or _SERVICE
    unit = "Requests" if charge.kind == REQUEST else "Tokens"
    return {
        **dict.fromkeys(("BilledCost", "ContractedCost", "EffectiveCost", "ListCost"), charge.cost),
        **dict.fromkeys(("ContractedUnitPrice", "ListUnitPrice"), charge.unit_price),
        **dict.fromkeys(("ConsumedQuantity", "PricingQuantity"), charge.quantity),
        **dict.fromkeys(("ConsumedUnit", "PricingUnit"), unit),
        **dict.fromkeys(("InvoiceIssuerName", "ServiceName"), _SERVICE),
        **dict.fromkeys(("ProviderName", "PublisherName"), provider),
        **_periods(date.fromisoformat(charge.day)),
        **_sku(charge),
        "BillingAccountId": account,
        "BillingAccountName": account,
        "BillingAccountType": "Gateway",
        "BillingCurrency": "USD",
        "ChargeCategory": "Usage",
        "ChargeClass": None,
        "ChargeDescription": f"{_METERS[charge.kind]} of {charge.deployment or 'models'} by {charge.tenant}",
        "ChargeFrequency": "Usage-Based",
        "PricingCategory": "Standard",
        "ResourceId": charge.key_id,
        "ResourceName": None,
        "ResourceType": None if charge.key_id is None else "API Key",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceSubcategory": "Generative AI",
        "SubAccountId": charge.tenant,
        "SubAccountName": charge.tenant,
        "SubAccountType": "Tenant",
        "Tags": charge.tags,
        "x_PaidBy": charge.paid_by,
        "x_PriceVersion": charge.price_version,
        "x_UnpricedRequests": charge.unpriced,
    }


def _periods(day: date) -> dict[str, object]:
    month = day.replace(day=1)
    return {
        "BillingPeriodStart": _midnight(month),
        "BillingPeriodEnd": _midnight((month + timedelta(days=31)).replace(day=1)),
        "ChargePeriodStart": _midnight(day),
        "ChargePeriodEnd": _midnight(day + timedelta(days=1)),
    }


def _sku(charge: Charge) -> dict[str, object]:
    """A meter of a deployment. Its price may change, its name does not."""
    names = ("SkuId", "SkuMeter", "SkuPriceDetails", "SkuPriceId")
    if charge.deployment is None:
        return dict.fromkeys(names)
    sku = f"{charge.deployment}:{charge.kind}"
    details = json.dumps({"Model": charge.deployment.partition("/")[2], "TokenKind": charge.kind})
    return dict(zip(names, (sku, _METERS[charge.kind], details, sku), strict=True))


def _midnight(day: date) -> str:
    return f"{day.isoformat()}T00:00:00Z"


def _write(out: TextIO, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
