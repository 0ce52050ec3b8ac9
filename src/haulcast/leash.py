"""Commands that do not outlive the process that started them, however that one ends.

1. Linux sends a process a signal of its choice when its parent dies (`PR_SET_PDEATHSIG`, see prctl(2)), also when the
   parent was killed and could clean up nothing. Elsewhere a leashed command is an ordinary one.
2. The wish survives `exec`, but not a change of user: so the user is changed first. Nor does it cover a parent that
   died before it was made: so the parent's id is compared afterwards.
3. "Parent" is the thread that started the command. Start leashed commands from a thread that lives as long as the
   process: the main thread, or one of its own.
4. All of that happens in this file run as a script, between `fork` and the command: `preexec_fn` would run Python in
   the copy of a process that may have threads. It imports the standard library only and takes some 20 ms.
"""

import ctypes
import os
import pwd
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1
_AS_IS = "-"
_EXIT_ORPHAN = 1


def leashed(command: Sequence[str], on_parents_death: signal.Signals, user: str | None = None) -> list[str]:
    """The command line that runs `command` on a leash, held by the thread that starts it; as `user`, if root asks."""
    isolated = (sys.executable, "-I", "-S", __file__)
    return [*isolated, str(os.getpid()), str(int(on_parents_death)), user or _AS_IS, *command]


def _run(parent: int, on_parents_death: int, user: str, command: list[str]) -> None:
    if user != _AS_IS:
        entry = pwd.getpwnam(user)
        os.initgroups(user, entry.pw_gid)
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, on_parents_death, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(_EXIT_ORPHAN)
    os.execvp(command[0], command)


if __name__ == "__main__":
    _run(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
