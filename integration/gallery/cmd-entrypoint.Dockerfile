FROM mobysession-base AS exec
ENTRYPOINT ["/bin/echo", "exec"]
CMD ["form"]
FROM exec
ENTRYPOINT exec /bin/echo shell
