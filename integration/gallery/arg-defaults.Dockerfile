# options: --build-arg GIVEN=given --build-arg EMPTY=
FROM mobysession-base
ARG GIVEN=default
ARG EMPTY=default
ARG MISSING
ARG DERIVED=${GIVEN}-derived
ENV KEPT=${DERIVED}
RUN printf '%s|' "$GIVEN" "$EMPTY" "${MISSING-unset}" "$DERIVED" > /out
