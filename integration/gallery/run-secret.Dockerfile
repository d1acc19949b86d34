# options: --secret id=file,src=CONTEXT/file --secret id=env,env=GALLERY_SECRET
FROM mobysession-base
RUN --mount=type=secret,id=file md5sum < /run/secrets/file > /file
RUN --mount=type=secret,id=env,target=/tmp/s,mode=0440,uid=5,gid=6,required stat -c '%a %u %g' /tmp/s > /env
RUN --mount=type=secret,id=none,required=false test ! -e /run/secrets/none
