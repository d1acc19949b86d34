FROM mobysession-base
WORKDIR /a
WORKDIR b
RUN pwd > out
USER 1000:1000
WORKDIR /owned
COPY file .
