# options: --no-cache-filter=one
FROM mobysession-base AS one
RUN echo one > /one
FROM one
RUN echo two > /two
