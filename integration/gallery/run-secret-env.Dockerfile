# options: --secret id=file,src=CONTEXT/file
# since: 28
FROM mobysession-base
RUN --mount=type=secret,id=file,env=SECRET printf %s "$SECRET" | md5sum > /out
