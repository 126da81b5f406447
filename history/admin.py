"""Snapshots to look at, instruments to correct. Floor 4.

The snapshot list stays fast on a big table: newest rows by primary key, symbols found through the index,
and no count beyond what anybody pages through.
"""

from typing import Any, Final

from django.contrib import admin
from django.core.paginator import Paginator
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest
from django.utils.functional import cached_property

from history import queries
from history.models import Instrument, Snapshot
from orderbook.book.price import decimals_of, format_price
from orderbook.book.timestamp import format_ns

MOST_COUNTED: Final = 100_000


class BoundedPaginator(Paginator):  # type: ignore[type-arg]  # the admin decides what it pages
    """A paginator that counts no further than MOST_COUNTED rows: a full count reads the whole table."""

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        return int(rows.order_by()[:MOST_COUNTED].count())


class StoredSymbol(admin.SimpleListFilter):
    """The symbols that have snapshots."""

    title = "symbol"
    parameter_name = "symbol"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(symbol, symbol) for symbol in queries.stored_symbols()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Snapshot]) -> QuerySet[Snapshot]:
        return queryset.filter(symbol=self.value()) if self.value() else queryset


@admin.register(Snapshot)
class SnapshotAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # ModelAdmin takes no parameter at run time
    """Rows that the engine wrote. Nobody changes what was measured."""

    list_display = ("symbol", "time", "sequence", "best_bid", "bid_size", "best_ask", "ask_size", "spread")
    list_display_links = ("time",)
    list_filter = (StoredSymbol,)
    list_per_page = 100
    ordering = ("-id",)
    paginator = BoundedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER  # each would count the table
    fields = readonly_fields = (
        "symbol",
        "time",
        "ts_event",
        "received",
        "sequence",
        "best_bid",
        "bid_size",
        "best_bid_ct",
        "best_ask",
        "ask_size",
        "best_ask_ct",
        "spread",
    )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Snapshot | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Snapshot | None = None) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Snapshot]:
        tick = Instrument.objects.filter(symbol=OuterRef("symbol")).values("tick_size")[:1]
        rows: QuerySet[Snapshot] = super().get_queryset(request)
        return rows.annotate(tick=Subquery(tick))

    @admin.display(description="Time (UTC)")
    def time(self, row: Snapshot) -> str:
        return format_ns(row.ts_event)

    @admin.display(description="Received (UTC)")
    def received(self, row: Snapshot) -> str:
        return format_ns(row.ts_recv)

    @admin.display(description="Bid size")
    def bid_size(self, row: Snapshot) -> int:
        return row.best_bid_sz

    @admin.display(description="Ask size")
    def ask_size(self, row: Snapshot) -> int:
        return row.best_ask_sz

    @admin.display(description="Best bid")
    def best_bid(self, row: Snapshot) -> str | None:
        return _price_text(row, row.best_bid_px)

    @admin.display(description="Best ask")
    def best_ask(self, row: Snapshot) -> str | None:
        return _price_text(row, row.best_ask_px)

    @admin.display(description="Spread")
    def spread(self, row: Snapshot) -> str | None:
        if row.best_bid_px is None or row.best_ask_px is None:
            return None
        return _price_text(row, row.best_ask_px - row.best_bid_px)


@admin.register(Instrument)
class InstrumentAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # ModelAdmin takes no parameter at run time
    """What is known of each symbol. The tick is inferred from data, so people may correct it."""

    list_display = ("symbol", "tick", "instrument_id", "publisher_id")
    search_fields = ("symbol",)
    fields = ("symbol", "tick_size", "tick", "instrument_id", "publisher_id")
    readonly_fields = ("symbol", "tick", "instrument_id", "publisher_id")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False  # instruments come with the data

    @admin.display(description="Tick", ordering="tick_size")
    def tick(self, instrument: Instrument) -> str:
        return format_price(instrument.tick_size, 0)


def _price_text(row: Snapshot, price: int | None) -> str | None:
    """Return a price with the instrument's decimals; get_queryset put its tick on the row."""
    tick: int | None = getattr(row, "tick", None)
    return None if price is None else format_price(price, decimals_of(tick or 1))
