FROM mobysession-base AS source
RUN mkdir /s && echo s > /s/file
FROM mobysession-base
RUN --mount=type=bind,source=tree,target=/tree cp -r /tree /copied
RUN --mount=type=bind,from=source,source=/s,target=/s,rw sh -c 'echo more >> /s/file && cp /s/file /out'
RUN --mount=target=/context,ro sh -c 'ls /context > /listed; touch /context/x 2> /dev/null || echo read-only > /mode'
