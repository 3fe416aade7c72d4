# Thor with JetPack 7, and computers with an NVIDIA GPU: CUDA 13, TensorRT 10.13, Python 3.12.

FROM nvcr.io/nvidia/tensorrt:25.08-py3
WORKDIR /opt/edgetrt
RUN python3 -m pip install --no-cache-dir --no-deps --target /opt/edgetrt \
        numpy==2.2.6 opencv-python-headless==4.12.0.88
# What one build measured is kept beside the run for the next; user 1000 has no home.
ENV LANG=C.UTF-8 XDG_CACHE_HOME=/data/.cache
COPY engines/ engines/
COPY benchmarks/ benchmarks/
# A Jetson's first user, and the group `video`, which owns the GPU's device nodes.
USER 1000:44
ENTRYPOINT ["python3", "-m", "benchmarks.device"]
