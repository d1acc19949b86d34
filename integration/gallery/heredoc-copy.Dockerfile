# since: 23
FROM mobysession-base
ENV WHO=world
COPY <<one <<"two" /heredocs/
Hello, $WHO!
one
Not expanded: $WHO
two
COPY --chmod=755 <<-EOF /script
	#!/bin/sh
	echo tabs are stripped
EOF
RUN /script > /out
