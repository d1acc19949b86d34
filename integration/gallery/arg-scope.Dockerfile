# options: --build-arg VERSION=2
ARG VERSION=1
ARG BASE=mobysession-base
FROM $BASE AS first
RUN echo "before: ${VERSION:-nothing}" > /first
ARG VERSION
RUN echo "after: $VERSION" >> /first
FROM first
RUN echo "inherited: ${VERSION:-nothing}" > /second
ARG VERSION=3
RUN echo "again: $VERSION" >> /second
