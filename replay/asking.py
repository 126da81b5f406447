"""Which replay a verb means: the one that was active when it was first asked for, however often it is asked. Floor 3.

What is wanted of a replay is written together with the name it is asked under, in one transaction. So who finds the
name knows that it was wanted once; it is not written again, because somebody may want something else by now.
"""

from dataclasses import dataclass
from typing import cast

from django.db import transaction

from replay import runs
from replay.models import NamedRequest, Replay
from replay.runs import Desire
from replay.streamer.messages import StreamerStatus


@dataclass(frozen=True, slots=True)
class Asked:
    """A verb that is to be carried out, or was."""

    name: str | None
    desire: Desire | None = None
    answer: StreamerStatus | None = None
    """What was answered to it before; None when nobody knows."""
    is_over: bool = False
    """The replay that it means has ended, or there was none."""
    is_overtaken: bool = False
    """Something else is wanted of that replay by now."""

    def answered(self, status: StreamerStatus) -> None:
        """Keep the answer for whoever asks again."""
        if self.name is not None:
            NamedRequest.objects.filter(name=self.name).update(answer=status)

    def failed(self) -> None:
        """Want again what was wanted before; whoever asks again tries again."""
        with transaction.atomic():
            if self.name is not None:
                NamedRequest.objects.filter(name=self.name, answer__isnull=True).update(failed=True)
            if self.desire is not None:
                self.desire.take_back()


@transaction.atomic
def ask(name: str | None, state: Replay.Desired | None) -> Asked:
    """Write what is wanted of the active replay, if it is wanted now; ``state`` is None where a verb wants none."""
    run = runs.active_run()
    if name is not None:
        request, is_first = NamedRequest.objects.select_for_update().get_or_create(name=name, defaults={"replay": run})
        if request.answer is not None:
            return Asked(name, answer=cast(StreamerStatus, request.answer))
        if not is_first and (run is None or request.replay_id != run.pk):
            return Asked(name, is_over=True)
        if not is_first and not request.failed:
            return Asked(name, is_overtaken=state is not None and run is not None and run.desired_state != state)
        NamedRequest.objects.filter(name=name).update(failed=False)
    return Asked(name, desire=None if state is None or run is None else runs.desire_of(run, state))
