FROM scratch
LABEL empty=yes
