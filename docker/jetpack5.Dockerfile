# Xavier with JetPack 5.1: CUDA 11.4, TensorRT 8.5, Python 3.8, all inside the image.
# The first stage has pip, which stays behind in it.

FROM nvcr.io/nvidia/l4t-jetpack:r35.4.1 AS packages
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-pip \
    && rm -rf /var/lib/apt/lists/*
# TensorRT 8.5 asks numpy for np.bool, which 1.24 no longer has.
RUN python3 -m pip install --no-cache-dir --no-deps --target /opt/edgetrt \
        numpy==1.23.5 opencv-python-headless==4.11.0.86

FROM nvcr.io/nvidia/l4t-jetpack:r35.4.1
# What one build measured is kept beside the run for the next; user 1000 has no home.
ENV LANG=C.UTF-8 XDG_CACHE_HOME=/data/.cache
WORKDIR /opt/edgetrt
COPY --from=packages /opt/edgetrt/ ./
COPY engines/ engines/
COPY benchmarks/ benchmarks/
# A Jetson's first user, and the group `video`, which owns the GPU's device nodes.
USER 1000:44
ENTRYPOINT ["python3", "-m", "benchmarks.device"]
