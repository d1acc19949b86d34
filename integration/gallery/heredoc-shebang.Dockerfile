# since: 23
FROM mobysession-base
RUN <<EOF
#!/bin/sh -e
echo by a shebang > /out
EOF
