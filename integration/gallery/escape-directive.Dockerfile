# escape=`
FROM mobysession-base
RUN echo one `
    two > /out
ENV BACKSLASH=C:\dir
