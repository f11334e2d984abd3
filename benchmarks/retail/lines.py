"""The retail sample's lines, and what each one is: the census that accounts for every line, dirty ones included.

Owner: the reading of the data file; the seeded draws that stand for what the file does not tell.
Invariants: each line has exactly one fate; the same seed gives a line the same fate, however many lines are read.
Not here: the events made of them (workload.py), towns (places.py), stock (supply.py).
"""

import csv
import gzip
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from itertools import islice
from pathlib import Path

from benchmarks.record import APPLIED
from topics.reasons import DeadLetter

SAMPLE = Path(__file__).with_name("online_retail_sample.csv.gz")
TILL_SHARE = 0.2  # of the invoices of British customers who are known by name
HOME = "United Kingdom"


class Fate(Enum):
    """What a line becomes: the outcome of its event, and why."""

    ORDER_LINE = (APPLIED, "goods sent to a customer: a line of an order")
    TILL_SALE = (APPLIED, "goods sold over the counter: a till's sale")
    RETURN = (APPLIED, "goods on a credit note: returned at the customer's store")
    ADJUSTMENT = (APPLIED, "price 0, no customer, alone on its invoice: a correction of a warehouse's stock")
    CARRIAGE = (
        DeadLetter.UNKNOWN_KIND.wire,
        "POST, DOT and C2 are carriage: the shop system books it as a sale of kind `carriage`",
    )
    MANUAL = (DeadLetter.WRONG_FIELD.wire, "M and m were keyed by hand: the sale names no article, its sku is empty")
    DISCOUNT = (DeadLetter.OUT_OF_RANGE.wire, "D is a discount: the shop system sends it as a sale of -1")
    FEE = (DeadLetter.MISSING_FIELD.wire, "BANK CHARGES and AMAZONFEE are bookings: the sale has no sku at all")
    SAMPLE = (DeadLetter.UNKNOWN_LOCATION.wire, "S are samples: booked on the department SAMPLES, which is no location")
    VOUCHER = (DeadLetter.WRONG_FIELD.wire, "gift_… are vouchers: their system sends quantities as text")

    def __init__(self, outcome: str, why: str):
        self.outcome = outcome
        self.why = why


# What is no goods. Everything else is, odd codes (DCGS0076) and codes that differ in case only included.
NO_GOODS = {
    "POST": Fate.CARRIAGE,
    "DOT": Fate.CARRIAGE,
    "C2": Fate.CARRIAGE,
    "M": Fate.MANUAL,
    "m": Fate.MANUAL,
    "D": Fate.DISCOUNT,
    "BANK CHARGES": Fate.FEE,
    "AMAZONFEE": Fate.FEE,
    "S": Fate.SAMPLE,
}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the file."""

    number: int
    """In the file, from 1."""
    position: int
    """On its invoice, from 1."""
    sku: str
    quantity: int
    """Units, signed as in the file."""
    price: int
    """Pence a unit."""


@dataclass(frozen=True, slots=True)
class Invoice:
    """Consecutive lines of one invoice."""

    number: str
    customer: str
    """Empty = not known."""
    country: str
    lines: list[Line]


def draw(seed: int, *parts: object) -> float:
    """A number in [0, 1) that depends on the arguments only: the same on every machine, in any order of calls."""
    digest = blake2b(repr((seed, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def read_invoices(lines: int | None = None) -> list[Invoice]:
    """Read the sample's first `lines` lines (None = all 50,062), in the file's order."""
    invoices: list[Invoice] = []
    with gzip.open(SAMPLE, "rt", newline="") as file:
        for number, row in enumerate(islice(csv.DictReader(file), lines), start=1):
            if not invoices or invoices[-1].number != row["invoice_no"]:
                invoices.append(Invoice(row["invoice_no"], row["customer_id"], row["country"], []))
            of_invoice = invoices[-1].lines
            price = round(float(row["unit_price"]) * 100)
            of_invoice.append(Line(number, len(of_invoice) + 1, row["stock_code"], int(row["quantity"]), price))
    return invoices


def fates_of(invoice: Invoice, seed: int) -> list[Fate]:
    """The fate of each of the invoice's lines."""
    goods = _fate_of_goods(invoice, seed)
    return [Fate.VOUCHER if line.sku.startswith("gift_") else NO_GOODS.get(line.sku, goods) for line in invoice.lines]


def _fate_of_goods(invoice: Invoice, seed: int) -> Fate:
    if invoice.number.startswith("C"):
        return Fate.RETURN
    if invoice.customer:
        sold_here = invoice.country == HOME and draw(seed, "till", invoice.number) < TILL_SHARE
        return Fate.TILL_SALE if sold_here else Fate.ORDER_LINE
    if all(line.price == 0 for line in invoice.lines):
        return Fate.ADJUSTMENT
    # Nameless invoices with dotcom postage gather the orders of a web shop; the others were paid at a counter.
    return Fate.ORDER_LINE if any(line.sku == "DOT" for line in invoice.lines) else Fate.TILL_SALE
