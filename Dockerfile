# unsee for the CPU.   docker build -t unsee .   docker run --rm -v "$PWD:/work" unsee demo
ARG PYTHON=3.11
FROM python:${PYTHON}-slim AS build
WORKDIR /src
RUN pip install --no-cache-dir build hatchling
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN python -m build --wheel --no-isolation --outdir /dist

FROM python:${PYTHON}-slim
# Where PyTorch's wheels without CUDA are, such as an index's address; empty takes the default ones.
ARG TORCH_INDEX=
ARG EXTRAS=certificates,export
COPY --from=build /dist /dist
RUN if [ -n "$TORCH_INDEX" ]; then pip install --no-cache-dir --index-url "$TORCH_INDEX" torch; fi \
    && wheel=$(ls /dist/*.whl) \
    && pip install --no-cache-dir "${wheel}[${EXTRAS}]" \
    && rm -r /dist \
    && useradd --create-home --uid 1000 unsee \
    && mkdir /work && chown unsee /work
USER unsee
WORKDIR /work
ENTRYPOINT ["unsee"]
CMD ["--help"]
