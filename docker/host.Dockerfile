# The pipeline on any computer: retrain, export, quantize, build, compare. No GPU is needed.

FROM python:3.12-slim-bookworm AS build
RUN python -m venv /opt/edgetrt
ENV PATH=/opt/edgetrt/bin:$PATH
WORKDIR /build
COPY requirements.lock ./
RUN pip install --no-cache-dir --require-hashes -r requirements.lock
COPY LICENSE README.md pyproject.toml ./
COPY engines/ engines/
COPY benchmarks/ benchmarks/
COPY pipeline/ pipeline/
RUN pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.12-slim-bookworm
COPY --from=build /opt/edgetrt /opt/edgetrt
# Keras and Matplotlib keep settings in a home folder; the user below has none.
ENV PATH=/opt/edgetrt/bin:$PATH \
    HOME=/tmp
WORKDIR /work
USER 1000:1000
ENTRYPOINT ["edgetrt"]
