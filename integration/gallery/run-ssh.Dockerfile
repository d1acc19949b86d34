# options: --ssh default=AGENT
FROM mobysession-base
RUN --mount=type=ssh,mode=0666 sh -c 'test -S "$SSH_AUTH_SOCK" && echo "$SSH_AUTH_SOCK" > /socket'
RUN --mount=type=ssh,id=none,required=false sh -c 'echo "${SSH_AUTH_SOCK:-no socket}" > /none'
