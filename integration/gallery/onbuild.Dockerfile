FROM mobysession-base AS template
ONBUILD COPY file /onbuild/file
ONBUILD RUN cat /onbuild/file > /onbuild/ran
ONBUILD ENV FROM_TEMPLATE=yes
FROM template
RUN cat /onbuild/ran > /after
