FROM scratch
COPY --from=mobysession-base /bin/busybox /busybox
