"""D5, C1, C9: whatever a client sends that it should not, it is told which code it is and what is wrong, the server
logs one line that shows nothing of it, counts it, and goes on serving everybody else.

`Bench.notices` holds each case to the last three. Refusals by the dispatch core (somebody was faster, there is no such
broadcast) are outcomes: counted, not logged.
"""
