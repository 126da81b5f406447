"""Failed log-ins by address: who guesses keys is not listened to for a while. Floor 1; the time is an argument."""

from collections import OrderedDict, deque
from typing import Final

MAX_FAILURES: Final = 10
WITHIN_NS: Final = 60 * 10**9
"""So many failures within this time, and an address is refused for as long from the last of them."""
MAX_ADDRESSES: Final = 1024


class Attempts:
    """Remembers the newest failures of each address; of too many addresses the one that failed longest ago goes."""

    def __init__(self) -> None:
        self._failures: OrderedDict[str, deque[int]] = OrderedDict()

    def failed(self, address: str, now_ns: int) -> None:
        """Note a wrong answer to a challenge."""
        self._failures.setdefault(address, deque(maxlen=MAX_FAILURES)).append(now_ns)
        self._failures.move_to_end(address)
        if len(self._failures) > MAX_ADDRESSES:
            self._failures.popitem(last=False)

    def succeeded(self, address: str) -> None:
        """Forget what an address did wrong: somebody there has a key."""
        self._failures.pop(address, None)

    def is_refused(self, address: str, now_ns: int) -> bool:
        """Say whether an address has failed too often, too recently."""
        failures = self._failures.get(address)
        if failures is None or len(failures) < MAX_FAILURES:
            return False
        oldest, newest = failures[0], failures[-1]
        return newest - oldest <= WITHIN_NS and now_ns - newest < WITHIN_NS
