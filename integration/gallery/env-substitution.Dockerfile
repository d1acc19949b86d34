FROM mobysession-base
ENV A=alpha EMPTY=""
ENV B=${A:-other} C=${NONE:-fallback} D=${A:+set} E=${EMPTY:-filled} F="with $A and \$A"
WORKDIR /${A}
COPY file ${B}/${C}
