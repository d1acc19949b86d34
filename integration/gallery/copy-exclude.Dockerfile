# since: 29
FROM scratch
COPY --exclude=*.log --exclude=sub tree /tree
