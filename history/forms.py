"""What may be asked of the history: ordinary forms, for the page and for REST alike. Floor 4."""

from typing import Any, Final

from django import forms

from orderbook.book.timestamp import format_ns, parse_ns

DEFAULT_LIMIT: Final = 2000
MAX_LIMIT: Final = 20_000


class InstantField(forms.Field):
    """An ISO time with a zone and up to nine fractional digits, as nanoseconds UTC."""

    widget = forms.TextInput

    def to_python(self, value: Any) -> int | None:
        text = "" if value is None else str(value).strip()
        if not text:
            return None
        try:
            # an unescaped + arrives as a blank; the cut keeps a long mistake out of the message
            return parse_ns(text[:60].replace(" ", "+") if "T" in text else text[:60])
        except ValueError as error:
            raise forms.ValidationError(str(error), code="invalid") from None

    def prepare_value(self, value: Any) -> Any:
        return format_ns(value) if isinstance(value, int) else value


class SymbolForm(forms.Form):
    """Which market."""

    symbol = forms.CharField(max_length=71)


class RangeForm(SymbolForm):
    """Which market, from when to when; both ends are included."""

    start = InstantField(label="From")
    end = InstantField(label="To")

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        start, end = cleaned.get("start"), cleaned.get("end")
        if start is not None and end is not None and start > end:
            self.add_error("end", f"expected a time not before start, found {format_ns(end)} < {format_ns(start)}")
        return cleaned


class HistoryForm(RangeForm):
    """A range, and how many rows at most."""

    limit = forms.IntegerField(min_value=1, max_value=MAX_LIMIT, required=False)

    def clean_limit(self) -> int:
        limit: int | None = self.cleaned_data["limit"]
        return DEFAULT_LIMIT if limit is None else limit


def first_errors(form: forms.Form) -> str:
    """Return one line that names each wrong parameter and what is wrong with it."""
    return "; ".join(f"{name}: {errors[0]}" for name, errors in form.errors.items())
