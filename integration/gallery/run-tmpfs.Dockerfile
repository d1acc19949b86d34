FROM mobysession-base
RUN --mount=type=tmpfs,target=/scratch sh -c 'echo gone > /scratch/file && cat /scratch/file > /out'
