# options: --target middle
FROM mobysession-base AS first
RUN echo first > /first
FROM first AS middle
RUN echo middle > /middle
FROM mobysession-base AS last
RUN false
