# since: 23
FROM mobysession-base
RUN --mount=type=tmpfs,target=/scratch,size=1048576 df -k /scratch | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2 > /out
