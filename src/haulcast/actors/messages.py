"""What lies in a broadcast actor's mailbox."""

import asyncio
from dataclasses import dataclass

from haulcast.domain.commands import Command
from haulcast.domain.replies import Reply
from haulcast.errors import Code, RequestError
from haulcast.ports import Origin


@dataclass(slots=True)
class Message:
    """A command and who waits for its reply: `origin` and `reply_to` are both set or both None."""

    command: Command
    origin: Origin | None = None
    reply_to: "asyncio.Future[Reply] | None" = None
    kills: int = 0
    """How many times handling it has ended an actor."""
    give_up_at_s: float | None = None
    """Until when it may be sent from node to node; None if it never was."""

    def answer(self, reply: Reply) -> None:
        """Give whoever waits the reply."""
        if self.reply_to is not None and not self.reply_to.done():
            self.reply_to.set_result(reply)

    def fail(self, error: Code | RequestError) -> None:
        """Tell whoever waits that there is no reply."""
        if self.reply_to is not None and not self.reply_to.done():
            self.reply_to.set_exception(error if isinstance(error, RequestError) else RequestError(error))
