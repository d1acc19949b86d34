FROM scratch
ADD archive.tar.gz /unpacked/
COPY archive.tar.gz /packed/
