"""`haulcast settings` and `haulcast control`: an operator's commands to a deployment that runs, over REST.

1. `arguments` is what may be said on the command line, `access` at which server and as whom, `values` the settings.
2. `api` asks, and asks again under the same id when a connection breaks: a command is carried out once.
3. `run` has one function for each command; `show` makes text of what the server says.
"""
