FROM mobysession-base
ADD --chown=5:6 tree /added/
ADD ["tree/with space", "/added/with space too"]
