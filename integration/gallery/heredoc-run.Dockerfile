# since: 23
FROM mobysession-base
RUN <<EOF
set -e
echo first > /first
cat /first /first > /second
EOF
RUN cat <<A > /third && cat <<B > /fourth
from a
A
from b
B
