# options: --build-arg HTTP_PROXY=http://127.0.0.1:1 --build-arg no_proxy=all
FROM mobysession-base
RUN echo "$HTTP_PROXY $no_proxy" > /out
