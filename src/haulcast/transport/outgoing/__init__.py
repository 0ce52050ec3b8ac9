"""Everything that the server says, as typed structs: the other half of `wire`.

Nothing is encoded with them: replies and views are built where they are decided, as plain JSON. They are what the
specifications (`specs`) are generated from, and what the tests hold every frame to that a real server sends.

1. `REPLIES` has the data of the reply to each request, `SNAPSHOTS` the data of each kind of topic, `EVENTS` that of
   each event.
2. A field with a default is one that may be absent. Clients ignore fields that they do not know.
"""

from .events import EVENTS
from .frames import Error, ErrorBody, Patch
from .replies import REPLIES
from .views import SNAPSHOTS, Announced, BroadcastView, Time

__all__ = ["EVENTS", "REPLIES", "SNAPSHOTS", "Announced", "BroadcastView", "Error", "ErrorBody", "Patch", "Time"]
