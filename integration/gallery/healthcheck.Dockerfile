FROM mobysession-base AS checked
HEALTHCHECK --interval=5s --timeout=3s --retries=2 --start-period=1s CMD ["/bin/true"]
FROM checked AS unchecked
HEALTHCHECK NONE
FROM checked
HEALTHCHECK CMD test -e /bin
