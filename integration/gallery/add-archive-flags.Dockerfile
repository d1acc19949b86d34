# since: 28
FROM scratch
ADD --unpack=false archive.tar.gz /packed/
ADD --unpack=true archive.tar.gz /unpacked/
