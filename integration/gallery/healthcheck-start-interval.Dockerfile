# since: 25
FROM mobysession-base
HEALTHCHECK --start-period=10s --start-interval=1s CMD true
