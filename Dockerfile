# softcam's HTTP service: `docker build --tag softcam .`, then see docs/how-to/serve.md.

FROM python:3.11-slim AS build
# Where torch comes from: this one has no part for GPUs, which makes the image gigabytes smaller.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN ["python", "-m", "venv", "/opt/softcam"]
ENV PATH=/opt/softcam/bin:$PATH
RUN pip install --no-cache-dir --index-url "$TORCH_INDEX" "torch>=2.11" "torchvision>=0.26"
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
# pip makes a wheel of the sources; neither they nor what builds it are part of the image below.
# hadolint ignore=DL3013
RUN pip install --no-cache-dir ".[serve,onnx,dicom]"

FROM python:3.11-slim
COPY --from=build /opt/softcam /opt/softcam
RUN ["useradd", "--system", "--uid", "10001", "--create-home", "softcam"]
USER 10001
# The exported graph of a model whose folder is read-only is kept below it, and forgotten with the container.
ENV PATH=/opt/softcam/bin:$PATH XDG_CACHE_HOME=/tmp/cache PYTHONUNBUFFERED=1
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
# Others can reach it, so it wants a token: the variable SOFTCAM_TOKEN, or --token-file with a secret.
ENTRYPOINT ["softcam", "serve"]
CMD ["/model", "--host", "0.0.0.0", "--port", "8000"]
