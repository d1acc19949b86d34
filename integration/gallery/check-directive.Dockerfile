# check=skip=JSONArgsRecommended;error=false
FROM mobysession-base
MAINTAINER somebody
CMD echo unchecked
