FROM mobysession-base
RUN ["/bin/sh", "-c", "echo $HOME exec > /exec"]
RUN echo "$HOME" shell > /shell
CMD ["a \"quoted\" word", "größe"]
