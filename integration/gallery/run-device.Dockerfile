# since: never
# options: --allow device
FROM mobysession-base
RUN --device=vendor.example/class=first true
