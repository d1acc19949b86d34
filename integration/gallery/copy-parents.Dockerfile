# since: 29
FROM scratch
COPY --parents ./tree/./sub/*.txt /parents/
