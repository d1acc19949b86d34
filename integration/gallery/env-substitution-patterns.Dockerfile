# since: 27
FROM mobysession-base
ENV NAME=archive.tar.gz
ENV STEM=${NAME%%.*} END=${NAME##*.} OTHER=${NAME/tar/zip}
