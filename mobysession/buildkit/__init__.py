"""What BuildKit says about a build, and how it is asked for one.

The Control API starts a build (``Solve``) and tells how it goes (``Status``). :mod:`~mobysession.buildkit.status` folds
that telling into one model which every progress view reads, :mod:`~mobysession.buildkit.solve_errors` turns the end of
a build that failed into a value. Both are pure: messages in, values out.
"""
