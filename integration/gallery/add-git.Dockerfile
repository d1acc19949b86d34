# since: never
FROM scratch
ADD --keep-git-dir=true git://127.0.0.1:1/none.git /repository
