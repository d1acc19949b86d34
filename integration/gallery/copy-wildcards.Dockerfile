FROM scratch
COPY f?le tr*e/l[a-f]* /some/
COPY file file2* /more/
COPY tree/. /all/
