FROM mobysession-base
RUN --mount=type=cache,id=gallery-ID,target=/cache,sharing=locked echo kept > /cache/kept
RUN --mount=type=cache,id=gallery-ID,target=/cache,ro cat /cache/kept > /out
RUN --mount=type=cache,id=gallery-other-ID,target=/cache,mode=0750,uid=3,gid=4 stat -c '%a %u %g' /cache > /stat
