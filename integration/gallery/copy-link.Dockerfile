# since: 23
FROM mobysession-base
COPY --link file /linked/file
COPY --link --chown=7:8 tree /linked/tree
