# since: 29
FROM scratch
COPY --chmod=u=rwX,go=rX tree /tree
