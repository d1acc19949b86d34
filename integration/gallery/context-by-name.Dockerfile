# options: --build-context other=CONTEXT/tree --build-context image=docker-image://mobysession-base
# since: 23
FROM image
COPY --from=other leaf /leaf
RUN --mount=from=other,target=/mnt cp /mnt/leaf /copied
