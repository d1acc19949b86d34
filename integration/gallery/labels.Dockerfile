# options: --label given=1 --label b=command
FROM mobysession-base
LABEL a="two words" b=dockerfile
LABEL c=1 \
      d=2
LABEL old style
