FROM mobysession-base AS one
RUN mkdir -p /made/deep && echo one > /made/deep/file && ln -s deep/file /made/link
FROM mobysession-base AS two
RUN echo two > /two
FROM scratch
COPY --from=one /made /made/
COPY --from=1 /two /
