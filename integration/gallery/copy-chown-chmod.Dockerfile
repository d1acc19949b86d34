FROM mobysession-base
COPY --chown=12:34 --chmod=750 file /one
COPY --chown=56 file /two
COPY --chmod=4711 tree /tree
