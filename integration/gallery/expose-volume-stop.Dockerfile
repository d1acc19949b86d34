FROM mobysession-base
EXPOSE 80 443/tcp 53/udp
VOLUME ["/data", "/more data"]
VOLUME /single
STOPSIGNAL SIGINT
