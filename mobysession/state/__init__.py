"""What this client remembers between processes: states, references to daemons, live sessions, inboxes.

All of it is in one SQLite database of the user's, written behind by one worker of each process. Nothing here loads
sqlite3 before a store is opened, so that a build which has nothing to remember pays for one look whether there is one.
"""
