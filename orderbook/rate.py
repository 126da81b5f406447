"""How many messages a client may send: so many a second, and as many at once. Floor 4."""


class Allowance:
    """A bucket of tokens: a message takes one, and so many come back each second. Times are s of the caller's clock."""

    def __init__(self, per_s: int, now: float) -> None:
        self._per_s = per_s
        self._left = float(per_s)
        self._at = now
        self.refused = 0
        """Messages that came too soon since the bucket was full the last time: to pause for a token is no rest."""

    def allows(self, now: float) -> bool:
        """Take a token, if there is one."""
        self._left = min(self._per_s, self._left + (now - self._at) * self._per_s)
        self._at = now
        if self._left == self._per_s:
            self.refused = 0
        if self._left < 1:
            self.refused += 1
            return False
        self._left -= 1
        return True
