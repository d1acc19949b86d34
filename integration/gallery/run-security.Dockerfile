# since: never
# options: --allow security.insecure
FROM mobysession-base
RUN --security=insecure true
