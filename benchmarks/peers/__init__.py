"""What people would use instead of edgetrt, measured beside it: same pictures, same graph, one run.

None of these clashes with edgetrt's own versions, so all run in one process, in turns. What
edgetrt does not install itself is fetched into a folder of its own, see `packages`.
"""
