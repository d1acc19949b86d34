FROM mobysession-base
SHELL ["/bin/sh", "-e", "-c"]
RUN echo "$-" | grep -q e && echo "with -e" > /out
CMD echo by the shell
